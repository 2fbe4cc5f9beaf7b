"""Training takes minutes where it is to be more than a few steps; those tests run when they are asked for."""

from __future__ import annotations

import os

import pytest

#: Set to 1, it runs the tests of training that are marked as slow: ten minutes on two processors.
ASKED_FOR = "RETINAFACE_FAST_SLOW_TESTS"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get(ASKED_FOR) == "1":
        return
    here = os.path.dirname(__file__)  # noqa: PTH120 -- compared with what pytest gives as text
    for item in items:
        if str(item.path).startswith(here) and item.get_closest_marker("slow") is not None:
            item.add_marker(pytest.mark.skip(reason=f"takes minutes; {ASKED_FOR}=1 runs it"))
