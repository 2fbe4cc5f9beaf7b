"""Tests of the package; `tests.reference` holds the oracles and is never shipped."""
