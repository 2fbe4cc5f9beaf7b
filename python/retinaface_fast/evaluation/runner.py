"""Detection in many pictures, into files: several at a time, and an interrupted run goes on.

In the folder of a run are `predictions/<event>/<name>.txt`, written whole or not at all, and `run.json`,
which says how they were made. Who runs again into the folder gets what is missing, or is told what is
different.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import queue
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import retinaface_fast
from retinaface_fast import _core, ops
from retinaface_fast._files import write_whole
from retinaface_fast._imports import import_cv2
from retinaface_fast._validation import check_optional_positive_int
from retinaface_fast.data import write_prediction
from retinaface_fast.data._text import wrong_name
from retinaface_fast.detector import DEFAULT_MODEL, FaceDetector
from retinaface_fast.engines import available_engines
from retinaface_fast.errors import DatasetError, RetinaFaceError
from retinaface_fast.weights import REGISTRY, ModelWeights, load_weights

from .protocols import Protocol

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence


__all__ = ["DetectionRun", "Failure", "RunProgress", "RunSummary", "claim_folder"]

#: How often the calling thread looks whether it was interrupted: on Windows a wait cannot be.
_PATIENCE_SECONDS = 0.5
#: The files of the evaluation that make detections; the others score what is there.
_DETECTING = ("evaluation/protocols.py", "evaluation/runner.py")


class Failure(NamedTuple):
    """A picture that could not be searched, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is.

    Attributes:
        total: Pictures that were asked for.
        kept: Those of them that an earlier run had done.
        done: Those that this one has done.
        faces: What it has found in them.
        failed: What it could not search, in the order in which that came out.
    """

    total: int
    kept: int
    done: int = 0
    faces: int = 0
    failed: tuple[Failure, ...] = ()

    @property
    def finished(self) -> int:
        """Pictures that need no more work in this run."""
        return self.kept + self.done + len(self.failed)


@dataclass(frozen=True, slots=True)
class RunSummary(RunProgress):
    """What a run has come to.

    Attributes:
        seconds: What it took, without building the detector.
    """

    seconds: float = 0.0

    @property
    def pictures_per_second(self) -> float:
        """Rate of the pictures that this run has done; 0 if it has done none."""
        return self.done / self.seconds if self.seconds > 0 else 0.0


class DetectionRun:
    """Searches pictures by a protocol and keeps what is found in files.

    All workers share one detector. Where there are several, each searches a picture of its own on one thread,
    which is faster than all of them at one picture.

    Args:
        protocol: How pictures are searched.
        images: Folder of the pictures, `<event>/<name>.jpg`.
        output: Folder of the run. It is made if need be.
        model: As for `FaceDetector`.
        weights: As for `FaceDetector`, a path.
        engine: As for `FaceDetector`, a name.
        device: As for `FaceDetector`.
        workers: Pictures that are searched at the same time. None for as many as there are processors that
            this process may use, or 1 where the engine uses them by itself or works on another device.

    Raises:
        ValueError: As for `FaceDetector`; or `workers` is less than 1.
        TypeError: As for `FaceDetector`; or `workers` is no integer.
        WeightsError: As for `FaceDetector`.
        EngineError: As for `FaceDetector`.
        MissingDependencyError: As for `FaceDetector`.
    """

    def __init__(
        self,
        protocol: Protocol,
        *,
        images: str | os.PathLike[str],
        output: str | os.PathLike[str],
        model: str = DEFAULT_MODEL,
        weights: str | os.PathLike[str] | None = None,
        engine: str = "auto",
        device: str | None = None,
        workers: int | None = None,
    ) -> None:
        workers = check_optional_positive_int(workers, "workers")
        if not isinstance(protocol, Protocol):
            raise TypeError(
                f"protocol must be a Protocol, such as PROTOCOLS['original'], got {type(protocol).__name__} "
                f"{protocol!r}"
            )
        self.protocol = protocol
        self._images, self._output = Path(images), Path(output)
        loaded = _load(model, weights)
        options = {"weights": loaded, "device": device, **protocol.options()}
        if weights is not None:
            options["model"] = model  # must be that of the file
        detector = FaceDetector(engine=engine, **options)
        # torch counts its threads for the whole process.
        shares = detector.engine != "torch"
        if workers is None:
            workers = _core.available_processors() if shares and detector.device == "cpu" else 1
        if workers > 1 and shares:
            detector = FaceDetector(engine=detector.engine, threads=1, **options)
        self._detector = detector
        self._workers = workers
        #: How the files are made, as JSON takes it.
        self.record = {
            "protocol": protocol.name,
            **protocol.to_dict(),
            "model": model if weights is None else loaded.config.name,
            "weights_sha256": loaded.sha256,
            "engine": detector.engine,
            "device": detector.device,
            "images": str(self._images.resolve()),
            **makers(detector.engine),
        }

    @property
    def predictions(self) -> Path:
        """Folder of the files `<event>/<name>.txt`, as `data.read_predictions` takes it."""
        return self._output / "predictions"

    @property
    def workers(self) -> int:
        """Pictures that are searched at the same time."""
        return self._workers

    def __call__(
        self, names: Sequence[str], *, progress: Callable[[RunProgress], None] | None = None
    ) -> RunSummary:
        """Search the pictures that have no file yet.

        A picture that is missing or broken is noted, and the run goes on. After Ctrl-C the pictures that are
        being searched are finished, and `KeyboardInterrupt` is raised again; what was done is kept.

        Args:
            names: The pictures, `event/name`.
            progress: Called in this thread: at the start, and after each picture.

        Returns:
            What was done, kept from earlier, and not possible.

        Raises:
            ValueError: A name is none.
            DatasetError: The folder holds predictions that were made in another way, or that another process
                is making, or cannot be written.
        """
        started = time.perf_counter()
        wanted = list(dict.fromkeys(names))
        for name in wanted:
            if wrong_name(name):
                raise ValueError(f"names must be event/name{wrong_name(name)}, got {name!r}")
        with _locked(self._output):
            self._claim()
            for part in self.predictions.rglob(".*.part"):  # of a process that was killed
                part.unlink(missing_ok=True)
            todo = [name for name in wanted if not is_done(self._output, name)]
            state = RunProgress(total=len(wanted), kept=len(wanted) - len(todo))
            # Closed, whatever happens here, before others may write to the folder.
            with contextlib.closing(self._outcomes(todo)) as outcomes:
                if progress is not None:
                    progress(state)
                for name, outcome in outcomes:
                    if isinstance(outcome, str):
                        failed = (*state.failed, Failure(name, outcome))
                        state = dataclasses.replace(state, failed=failed)
                    else:
                        state = dataclasses.replace(state, done=state.done + 1, faces=state.faces + outcome)
                    if progress is not None:
                        progress(state)
        seconds = time.perf_counter() - started
        return RunSummary(state.total, state.kept, state.done, state.faces, state.failed, seconds)

    def _claim(self) -> None:
        record = self._output / "run.json"
        if not record.exists() and any(self.predictions.rglob("*.txt")):
            raise DatasetError(
                f"{self._output} holds predictions, and no {record.name} that says how they were made: name "
                "another folder"
            )
        claim_folder(record, self.record)

    def _file(self, name: str) -> Path:
        return self.predictions / f"{name}.txt"

    def _outcomes(self, names: Sequence[str]) -> Generator[tuple[str, int | str], None, None]:
        """Search pictures; of each, the number of its faces or what went wrong, as they come."""
        results: queue.SimpleQueue[tuple[str, int | str | BaseException]] = queue.SimpleQueue()

        def _work(name: str) -> None:
            try:
                results.put((name, self._search(name)))
            except BaseException as error:
                results.put((name, error))

        with ThreadPoolExecutor(self._workers, thread_name_prefix="detection-run") as pool:
            try:
                for name in names:
                    pool.submit(_work, name)
                left = len(names)
                while left:
                    try:
                        name, outcome = results.get(timeout=_PATIENCE_SECONDS)
                    except queue.Empty:
                        continue
                    if isinstance(outcome, BaseException):
                        raise outcome
                    left -= 1
                    yield name, outcome
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _search(self, name: str) -> int | str:
        path = self._images / f"{name}.jpg"
        try:
            found = self.protocol.detect(self._detector, path)
        except _failures() as error:
            return str(error) or type(error).__name__
        try:
            with _writing(self._file(name)):
                write_prediction(self._file(name), name, found.boxes, found.scores, found.landmarks)
        except ValueError as error:  # numbers that no file can hold
            return str(error)
        return len(found)


def _load(model: str, weights: str | os.PathLike[str] | None) -> ModelWeights:
    if weights is not None:
        return load_weights(Path(weights))
    if model not in REGISTRY:
        raise ValueError(f"model must be one of {', '.join(REGISTRY)}, got {model!r}")
    return load_weights(model)


def is_done(output: Path, name: str) -> bool:
    """Return whether a run has the prediction of a picture; an empty file is what a lost disk leaves."""
    try:
        return (output / "predictions" / f"{name}.txt").stat().st_size > 0
    except OSError:
        return False


def makers(engine: str) -> dict[str, str | None]:
    """Return what can change the detections of an engine: versions, and digests of the code itself."""
    # The core is in all of them: it is the post-processing of each. OpenCV decodes the pictures.
    core = Path(_core.__file__).read_bytes()
    found: dict[str, str | None] = {
        "version": retinaface_fast.__version__,
        "core": hashlib.sha256(core).hexdigest()[:16],
        "code": _code(Path(retinaface_fast.__file__).parent),
        "simd": ops.simd_level(),
        "numpy": np.__version__,
        "opencv": import_cv2("reading pictures").__version__,
    }
    if engine != "native":
        found[engine] = available_engines()[engine]
    return found


def _code(package: Path) -> str:
    """Return a digest of the Python files that have a part in detections: a version has many states."""
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py")):
        room = name.partition("/")[0]
        if room == "cli" or (room == "evaluation" and name not in _DETECTING):
            continue
        # Line ends are those of whoever installed it.
        content = (package / name).read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def claim_folder(path: Path, record: Mapping[str, Any]) -> None:
    """Say in a folder how its files are made, or find that they were made in the same way.

    Args:
        path: The file that says it; it is made if it is not there.
        record: What it is to say, as JSON takes it.

    Raises:
        DatasetError: The file says something else, or is not readable as JSON; or cannot be written.
    """
    wanted = json.loads(json.dumps(record))
    if not path.exists():
        with _writing(path):
            write_whole(path, json.dumps(wanted, indent=2) + "\n")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: expected how the files beside it were made, as JSON: {error}") from None
    if not isinstance(found, dict):
        raise DatasetError(f"{path}: expected how the files beside it were made, got {found!r:.60}")
    different = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
    if different:
        what = ", ".join(f"{key} {found.get(key)!r} instead of {wanted.get(key)!r}" for key in different)
        raise DatasetError(f"{path.parent} was made with {what}: remove it, or name another folder")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder."""
    from filelock import FileLock, Timeout

    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise DatasetError(
                f"{folder}: another process is writing there; wait for it, or end it"
            ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an OSError into an error that names the file and ends the run: it is no picture's fault."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"cannot write {path}: {error.strerror or error}") from None


def _failures() -> tuple[type[Exception], ...]:
    """What is the fault of one picture and does not end the run."""
    # OpenCV raises its own class where it lacks memory.
    cv2 = sys.modules.get("cv2")
    return (RetinaFaceError, OSError, ValueError, MemoryError, *(() if cv2 is None else (cv2.error,)))
