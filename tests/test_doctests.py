"""The examples in the docstrings say what the functions do."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import retinaface_fast
from retinaface_fast.weights import bundled_path

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(retinaface_fast.__path__, "retinaface_fast.")
    if module.name.rpartition(".")[2] not in ("__main__", "_core")
)

#: Their examples build the default detector.
NEED_WEIGHTS = {"retinaface_fast.detector"}

#: Their examples need a package that is not always there.
NEED_PACKAGES = {"retinaface_fast.compare.dlib_detector": "dlib"}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    if name in NEED_WEIGHTS and bundled_path() is None:
        pytest.skip("this build has no weights in it")
    if name in NEED_PACKAGES:
        pytest.importorskip(NEED_PACKAGES[name])
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_the_examples_are_found() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    count = sum(
        bool(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name))
    )
    assert count > 20
