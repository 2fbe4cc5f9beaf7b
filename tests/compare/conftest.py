"""dlib's model files, where they are installed."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def dlib_files() -> None:
    """Skip where dlib or its model files are not installed."""
    pytest.importorskip("dlib")
    from retinaface_fast.compare import find_dlib_model
    from retinaface_fast.errors import MissingDependencyError

    try:
        find_dlib_model("landmarks-68")
    except MissingDependencyError as error:
        pytest.skip(str(error))
