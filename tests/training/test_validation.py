"""Validation: average precision by hand, and what pictures that cannot be searched are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retinaface_fast import DatasetError
from retinaface_fast.data import GroundTruth
from retinaface_fast.detections import Detections
from retinaface_fast.errors import EngineError, ImageError, MissingDependencyError
from retinaface_fast.training import records_validator, widerface_validator
from retinaface_fast.training import validation as module
from retinaface_fast.training.records import Record
from retinaface_fast.weights import bundled_path, load_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Faces = "Sequence[tuple[float, float]]"  # left edge and score of a square of 10 pixels


def squares(lefts: Sequence[float]) -> np.ndarray:
    left = np.array(lefts, np.float32).reshape(-1, 1)
    return np.hstack([left, 0 * left, left + 10, 0 * left + 10])


def record(path: Path, lefts: Sequence[float], ignored: Sequence[bool] | None = None) -> Record:
    boxes = squares(lefts)
    return Record(
        path,
        boxes,
        np.full((len(boxes), 5, 2), np.nan, np.float32),
        np.array(ignored if ignored is not None else [False] * len(boxes), bool),
        "made up:1",
    )


class Fake:
    """A detector that finds what it is told in each picture."""

    engine = "native"
    found: Mapping[str, Any] = {}

    def __init__(self, **_: Any) -> None:
        pass

    def detect(self, source: Path) -> Detections:
        outcome = self.found[source.name]
        if isinstance(outcome, Exception):
            raise outcome
        boxes = squares([left for left, _ in outcome])
        scores = np.array([score for _, score in outcome], np.float32)
        return Detections(
            boxes=boxes,
            scores=scores,
            landmarks=np.zeros((len(boxes), 5, 2), np.float32),
            image_size=(10, 100),
            timings={},
            engine="fake",
            device="cpu",
        )


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    outcomes: dict[str, Any] = {}
    monkeypatch.setattr(Fake, "found", outcomes)
    monkeypatch.setattr(module, "FaceDetector", Fake)
    monkeypatch.setattr(
        "retinaface_fast.evaluation.protocols.Protocol.detect",
        lambda _, detector, path: detector.detect(path),
    )
    return outcomes


def test_average_precision_by_hand(found: dict[str, Any], tmp_path: Path) -> None:
    # Four faces count. By score: right, wrong, right, (found an ignored one), right; the fourth is not found.
    records = [
        record(tmp_path / "a", [0, 20, 60], [False, False, True]),
        record(tmp_path / "b", [0, 40]),
    ]
    found["a"] = [(0, 0.9), (40, 0.8), (60, 0.65), (21, 0.6)]
    found["b"] = [(1, 0.7)]
    # Precision 1, 1/2, 2/3, 3/4 at recall 1/4, 1/4, 2/4, 3/4; its envelope is 1, 3/4, 3/4.
    expected = (1 + 3 / 4 + 3 / 4) / 4
    result = records_validator(records)(object())  # type: ignore[arg-type]
    assert result.ap == {"ap": pytest.approx(expected, abs=1e-12)}
    assert result.faults == ()
    assert [len(faces) for faces in result.found if faces is not None] == [4, 1]


def test_a_picture_that_cannot_be_searched_has_no_prediction(found: dict[str, Any], tmp_path: Path) -> None:
    records = [record(tmp_path / name, [0]) for name in "abc"]
    found.update(
        a=[(0, 0.9)],
        b=ImageError("damaged"),
        c=FileNotFoundError(2, "No such file or directory", "c"),
    )
    result = records_validator(records)(object())  # type: ignore[arg-type]
    assert result.ap == {"ap": pytest.approx(1 / 3)}
    assert result.faults == (
        f"{tmp_path / 'b'}: damaged",
        f"{tmp_path / 'c'}: [Errno 2] No such file or directory: 'c'",
    )
    assert [faces is None for faces in result.found] == [False, True, True]


@pytest.mark.parametrize(
    "error",
    [
        EngineError("CUDA out of memory"),
        MissingDependencyError("opencv", purpose="reading pictures", extra="cpu"),
        MemoryError(),
    ],
)
def test_a_device_that_fails_is_no_fault_of_a_picture(
    error: Exception, found: dict[str, Any], tmp_path: Path
) -> None:
    """An average precision of 0 would be a figure for weights that nobody has searched with."""
    found.update(a=[(0, 0.9)], b=error)
    with pytest.raises(type(error)) as raised:
        records_validator([record(tmp_path / name, [0]) for name in "ab"])(object())  # type: ignore[arg-type]
    assert raised.value is error


def test_an_interrupt_is_no_fault_and_does_not_wait_for_all(found: dict[str, Any], tmp_path: Path) -> None:
    records = [record(tmp_path / str(number), [0]) for number in range(200)]
    calls: list[str] = []

    class Counted(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            calls.append(name)
            if name == "0":
                raise KeyboardInterrupt
            module_time.sleep(0.01)
            return []

    import time as module_time

    Fake.found = Counted()
    with pytest.raises(KeyboardInterrupt):
        records_validator(records)(object())  # type: ignore[arg-type]
    assert len(calls) < 100


def test_nothing_to_find(tmp_path: Path) -> None:
    for records in ([], [record(tmp_path / "a", [])], [record(tmp_path / "a", [0], [True])]):
        with pytest.raises(DatasetError, match="there is no face to be found in the pictures to validate on"):
            records_validator(records)


def test_real_pictures(grace_hopper_path: Path, tmp_path: Path) -> None:
    if bundled_path() is None:
        pytest.skip("no weights are bundled")
    (tmp_path / "corrupt.jpg").write_bytes(grace_hopper_path.read_bytes()[:300])
    face = np.float32([[175, 80, 325, 285]])  # by eye
    records = [
        Record(path, face, np.full((1, 5, 2), np.nan, np.float32), np.zeros(1, bool), "made up:1")
        for path in (grace_hopper_path, tmp_path / "corrupt.jpg", tmp_path / "missing.jpg")
    ]
    result = records_validator(records, device="cpu")(load_weights("mobilenet0.25"))
    assert result.ap == {"ap": pytest.approx(1 / 3)}
    assert len(result.faults) == 2
    assert all(str(path.image) in text for path, text in zip(records[1:], result.faults, strict=True))


def truth(*names: str) -> GroundTruth:
    count = len(names)
    return GroundTruth(
        names,
        np.tile(np.float64([[0, 0, 10, 10]]), (count, 1)),
        np.arange(count + 1),
        {subset: np.ones(count, bool) for subset in ("easy", "medium", "hard")},
    )


def test_wider_face(found: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    for name in ("a", "b"):
        (tmp_path / "e" / f"{name}.jpg").write_bytes(b"")
    found.update({"a.jpg": [(0, 0.9)], "b.jpg": [(0, 0.8)]})
    result = widerface_validator(tmp_path, truth("e/a", "e/b"))(object())  # type: ignore[arg-type]
    assert set(result.ap) == {"easy", "medium", "hard"}
    assert all(ap > 0.9 for ap in result.ap.values())
    found["b.jpg"] = ImageError("damaged")
    worse = widerface_validator(tmp_path, truth("e/a", "e/b"))(object())  # type: ignore[arg-type]
    assert all(0.4 < ap < 0.6 for ap in worse.ap.values())


def test_missing_pictures_of_wider_face(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "a.jpg").write_bytes(b"")
    every = truth("e/a", "e/b", "e/c")
    with pytest.raises(DatasetError, match=r"2 of 3 pictures are missing: .*e.b\.jpg"):
        widerface_validator(tmp_path, every)
    with pytest.raises(DatasetError, match="2 of 3"):
        widerface_validator(tmp_path, every, most=1)
    assert len(widerface_validator(tmp_path, every, most=2).images) == 3
