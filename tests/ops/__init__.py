"""Tests of `retinaface_fast.ops`; how results are compared is written in `tests.ops.agreement`."""
