"""The loop: it learns, its options do what they say, and what comes out of it can be used."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch

from retinaface_fast import DatasetError, FaceDetector, RetinaFaceError
from retinaface_fast.network import CONFIGS, fold_batch_norm
from retinaface_fast.ops import P2_P6
from retinaface_fast.training import Recipe, read_records, records_validator
from retinaface_fast.training import recipe as recipe_module
from retinaface_fast.training import trainer as trainer_module
from retinaface_fast.training.initialisation import initialise
from retinaface_fast.training.trainer import Trainer
from retinaface_fast.training.validation import ValidationResult
from retinaface_fast.weights import load_weights
from retinaface_fast.weights.model_weights import make_weights

from .tiny import AS_IS, contents, losses_of, recipe, write_data, write_folded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from retinaface_fast.network import NetworkOutputs
    from retinaface_fast.training import Record
    from retinaface_fast.training.batch import BatchTargets


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), pictures=8)


@pytest.fixture(scope="module")
def records(data: Path) -> Sequence[Record]:
    return read_records(data).records


@pytest.fixture
def make(tmp_path: Path, records: Sequence[Record]) -> Callable[..., Trainer]:
    """Makes a trainer in a folder, by the tiny recipe with other values."""

    def made(name: str = "run", changes: dict[str, Any] | None = None, **options: Any) -> Trainer:
        usual: dict[str, Any] = {"records": records, "workers": 0, "device": "cpu"}
        return Trainer(recipe(tmp_path, changes), output=tmp_path / name, **(usual | options))

    return made


class Scripted:
    """A validator that says what it is told, and remembers the weights that it is given."""

    def __init__(self, *figures: float) -> None:
        self.figures = list(figures)
        self.weights: list[dict[str, np.ndarray]] = []
        self.images: tuple[Path, ...] = ()

    def __call__(self, weights: Any, *, protocol: str) -> ValidationResult:
        self.weights.append(dict(weights.tensors))
        return ValidationResult({"ap": self.figures[len(self.weights) - 1]}, ())


def assert_same_weights(path: Path, expected: dict[str, np.ndarray]) -> None:
    found = load_weights(path).tensors
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


# It learns


def test_it_learns_a_few_pictures(tmp_path: Path) -> None:
    records = read_records(write_data(tmp_path / "data", pictures=6, side=128)).records
    validator = records_validator(records, device="cpu")
    changes = {
        "augmentation.side": 128,
        "training.batch_size": 6,
        "schedule.epochs": 90,
        "schedule.warmup_epochs": 5,
        "validation.every": 90,
        "optimiser.lr": 3e-3,
    }
    untrained = initialise(CONFIGS["mobilenet0.25"], None, seed=0).network
    tensors = {
        name: tensor.numpy() for name, tensor in untrained.state_dict().items() if "num_batches" not in name
    }
    before = validator(make_weights(tensors, untrained.config, metadata={}, source="", sha256=""))
    result = Trainer(
        recipe(tmp_path, changes), records, tmp_path / "run", validator=validator, workers=0, device="cpu"
    ).run()
    assert result.finished
    assert result.progress.ap is not None
    assert before.ap["ap"] < 0.2
    assert result.progress.ap["ap"] > 0.95
    assert result.best is not None
    # What is reported is what the file gives.
    assert validator(load_weights(result.best)).ap == result.progress.ap
    # Landmarks are learnt, too, from one picture on which the whole chain works.
    detector = FaceDetector(weights=result.best, score_threshold=0.3)
    errors = []
    for record in records:
        found = detector.detect(record.image)
        for box, points in zip(record.boxes, record.landmarks, strict=True):
            nearest = np.abs(found.boxes - box).sum(axis=1).argmin()
            errors.append(np.abs(found.landmarks[nearest] - points).mean() / (box[2] - box[0]))
    assert np.median(errors) < 0.08


@pytest.mark.slow
def test_it_learns_real_pictures_by_heart(wider_dir: Path, tmp_path: Path) -> None:
    # The first sixteen of the list that hold one to ten faces, all of them at least 16 pixels wide and high
    # where the long side of the picture is 320 pixels: what the network sees.
    def fits(record: Record) -> bool:
        if not 1 <= len(record.boxes) <= 10 or record.ignored.any():
            return False
        image = cv2.imread(str(record.image))
        assert image is not None
        sides = (record.boxes[:, 2:] - record.boxes[:, :2]).min(axis=1)
        return bool((sides * 320 / max(image.shape[:2]) >= 16).all())

    every = read_records(
        wider_dir / "wider_face_val_bbx_gt.txt",
        images=wider_dir / "images",
        names=wider_dir / "train_part.txt",
    ).records
    records = []
    for record in every:
        if fits(record):
            records.append(record)
        if len(records) == 16:
            break
    assert len(records) == 16
    squares = []
    for number, record in enumerate(records):  # what the network is taught is what it is asked
        image = cv2.imread(str(record.image))
        assert image is not None
        scale = 320 / max(image.shape[:2])
        height, width = (round(side * scale) for side in image.shape[:2])
        square = np.full((320, 320, 3), 120, np.uint8)
        square[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), square)
        squares.append(
            dataclasses.replace(record, image=path, boxes=(record.boxes * scale).astype(np.float32))
        )
    changes = {
        "augmentation.side": 320,
        "training.batch_size": 4,
        "schedule.epochs": 120,
        "schedule.warmup_epochs": 2,
        "validation.every": 120,
        "optimiser.lr": 3e-3,
    }
    validator = records_validator(squares, device="cpu")
    result = Trainer(
        recipe(tmp_path, changes), squares, tmp_path / "run", validator=validator, workers=0, device="cpu"
    ).run()
    # Measured: 0.974.
    assert result.progress.best is not None
    assert result.progress.best > 0.95


def test_it_learns_on_five_levels(
    make: Callable[..., Trainer], records: Sequence[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2 to P6, three anchors each, as in the paper, but for its backbone of 152 layers."""
    small = dataclasses.replace(CONFIGS["mobilenet0.25"], name="small-p2-p6", anchors=P2_P6)
    monkeypatch.setattr(recipe_module, "CONFIGS", {**CONFIGS, small.name: small})
    changes = {"network.name": small.name, "schedule.epochs": 20, "schedule.warmup_epochs": 2}
    trainer = make(changes=changes)
    before = {name: values.copy() for name, values in trainer._weights(0).tensors.items()}
    result, losses = losses_of(trainer)
    assert len(losses) == 40
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    assert result.last is not None
    after = load_weights(result.last)
    assert after.config == small
    changed = {name for name, values in before.items() if not np.array_equal(values, after.tensors[name])}
    # P6 is a convolution of its own, and every level has heads.
    assert {f"class_head.{level}.weight" for level in range(5)} <= changed
    assert "fpn.extra.conv.weight" in changed
    detector = FaceDetector(weights=result.last, engine="torch", device="cpu", score_threshold=0.3)
    assert sum(len(detector.detect(record.image)) for record in records) >= len(records) // 2


# Options of the recipe


def test_micro_batches_add_up_to_the_batch(make: Callable[..., Trainer], data: Path, tmp_path: Path) -> None:
    folded = write_folded(tmp_path, data)
    _, whole = losses_of(make("whole", AS_IS, init=folded))
    _, parts = losses_of(make("parts", AS_IS | {"training.accumulate": 2}, init=folded))
    _, still = losses_of(make("still", AS_IS | {"optimiser.lr": 1e-12}, init=folded))
    assert len(whole) == 8
    assert whole[-1] < still[-1] - 0.5, "it learns"
    # The order of the sums differs, in float32.
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


def test_frozen_layers_keep_their_bits(make: Callable[..., Trainer]) -> None:
    frozen = ("backbone.stem", "backbone.blocks.1")
    trainer = make(changes={"optimiser.frozen": list(frozen)})
    before = {name: values.copy() for name, values in trainer._weights(0).tensors.items()}
    result = trainer.run()
    assert result.last is not None
    after = load_weights(result.last).tensors
    kept = {name for name in before if name.startswith(tuple(f"{prefix}." for prefix in frozen))}
    assert len(kept) == 6, "weights and biases of three convolutions, with batch norm folded in"
    for name, values in before.items():
        if name.startswith("backbone."):  # a head for faces that no picture has learns nothing
            assert np.array_equal(values, after[name]) == (name in kept), name


def test_workers_change_nothing(make: Callable[..., Trainer], tmp_path: Path) -> None:
    changes = {"augmentation.distort": True, "augmentation.flip": 0.5, "augmentation.crop_range": [0.5, 1.0]}
    changes |= {"augmentation.crop_scales": None}
    make("none", changes, workers=0).run()
    make("two", changes, workers=2).run()
    found, expected = contents(tmp_path / "two"), contents(tmp_path / "none")
    assert len(expected) > 3
    assert found == expected


def test_sixteen_bits(make: Callable[..., Trainer]) -> None:
    _, expected = losses_of(make("32"))
    result, losses = losses_of(make("16", {"training.precision": "bf16-mixed"}))
    assert result.last is not None
    assert losses != expected
    np.testing.assert_allclose(losses[0], expected[0], rtol=0.05)
    assert {values.dtype for values in load_weights(result.last).tensors.values()} == {np.dtype(np.float32)}


def test_the_average_is_what_is_written(make: Callable[..., Trainer]) -> None:
    """By hand: d = min(decay, (1 + n) / (10 + n)) after update n."""
    snapshots = []
    trainer = make(changes={"training.ema_decay": 0.15})
    network = trainer._learner._network.module

    def snapshot() -> dict[str, np.ndarray]:
        return {
            name: tensor.detach().numpy().astype(np.float64)
            for name, tensor in network.state_dict().items()
            if "num_batches" not in name
        }

    average = snapshot()
    trainer.run(progress=lambda state: snapshots.append(snapshot()))
    assert len(snapshots) == 4
    for number, latest in enumerate(snapshots):
        decay = min(0.15, (1 + number) / (10 + number))
        average = {name: decay * old + (1 - decay) * latest[name] for name, old in average.items()}
    found = load_weights(trainer.output / "last.safetensors").tensors
    expected = fold_batch_norm({name: values.astype(np.float32) for name, values in average.items()})
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-5, err_msg=name)
    np.testing.assert_raises(
        AssertionError,
        np.testing.assert_allclose,
        found["box_head.0.weight"],
        snapshots[-1]["box_head.0.weight"],
        rtol=1e-3,
        atol=1e-5,
    )


@pytest.mark.parametrize("network", ["resnet18", "paper-resnet152"])
def test_other_networks(network: str, make: Callable[..., Trainer], records: Sequence[Record]) -> None:
    if network == "paper-resnet152":
        pytest.importorskip("torchvision")
    changes = {
        "network.name": network,
        "training.batch_size": 2,
        "schedule.epochs": 1,
        "optimiser.lr": 1e-4,
    }
    if network == "paper-resnet152":
        changes |= {"network.deformable": True, "network.share_first": True}
    result, losses = losses_of(make(changes=changes, records=records[:2]))
    assert len(losses) == 1
    assert np.isfinite(losses).all()
    assert result.last is not None
    detector = FaceDetector(weights=result.last, engine="torch", device="cpu")
    detector.detect(records[0].image)


def test_the_head_begins_with_what_the_recipe_shows_it(make: Callable[..., Trainer]) -> None:
    trainer = make(changes={"loss.negatives_per_positive": 3})
    biases = trainer._weights(0).tensors["class_head.1.bias"].reshape(-1, 2).astype(np.float64)
    # A face is e^1 / (e^0 + e^1) as probable as biases 0 and 1 say.
    np.testing.assert_allclose(1 / (1 + np.exp(biases[:, 0] - biases[:, 1])), 1 / 4, rtol=1e-6)


# A dense term


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_dense_term_takes_part_and_is_logged(
    accumulate: int, make: Callable[..., Trainer], tmp_path: Path
) -> None:
    def dense(outputs: NetworkOutputs, targets: BatchTargets) -> torch.Tensor:
        assert len(targets.labels) == 4 // accumulate
        return 0.5 * torch.cat(outputs.landmark_deltas, dim=1).square().mean()

    def sizes(trainer: Trainer) -> list[float]:
        found: list[float] = []
        trainer.run(progress=lambda state: found.append(state.losses["dense"]) if state.losses else None)
        return found

    changes = {"training.accumulate": accumulate, "schedule.epochs": 4}
    weighed = make("weighed", changes | {"loss.dense_weight": 1000.0}, dense=dense)
    without = make("without", changes, dense=dense)
    assert without.recipe.loss.dense_weight == 0
    found, expected = sizes(weighed), sizes(without)
    # One network, on the same batch, and summed over the micro-batches; then it is what is learnt.
    assert found[0] == expected[0] > 0
    assert found[-1] < 0.5 * expected[-1]
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(tmp_path / "weighed" / "log"))
    log.Reload()
    # A mean for each epoch of two steps.
    means = [event.value for event in log.Scalars("train/dense")]
    assert means == pytest.approx(np.mean(np.reshape(found, (4, 2)), axis=1).tolist(), rel=1e-6)


def test_a_weight_of_no_dense_term(make: Callable[..., Trainer], tmp_path: Path) -> None:
    message = r"dense: expected a function, because loss\.dense_weight is 0\.01, got None"
    with pytest.raises(ValueError, match=message):
        make(changes={"loss.dense_weight": 0.01})
    assert not (tmp_path / "run").exists()


# What the folder holds


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, records: Sequence[Record]) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    Trainer(
        recipe(folder, {"schedule.epochs": 12, "validation.every": 6}),
        records,
        folder / "run",
        validator=records_validator(records, device="cpu"),
        workers=0,
        device="cpu",
    ).run()
    return folder / "run"


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_engines_agree_on_what_was_learnt(engine: str, trained: Path, records: Sequence[Record]) -> None:
    pytest.importorskip(engine)
    options: dict[str, Any] = {"score_threshold": 0.02, "device": "cpu"}
    native = FaceDetector(weights=trained / "last.safetensors", engine="native", **options)
    other = FaceDetector(weights=trained / "last.safetensors", engine=engine, **options)
    faces = 0
    for record in records:
        one, two = native.detect(record.image), other.detect(record.image)
        assert len(one) == len(two)
        faces += len(one)
        np.testing.assert_allclose(two.boxes, one.boxes, rtol=0, atol=0.01)
        np.testing.assert_allclose(two.landmarks, one.landmarks, rtol=0, atol=0.01)
        np.testing.assert_allclose(two.scores, one.scores, rtol=0, atol=1e-4)
    assert faces > 8


def test_the_log(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(trained / "log"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    log.Reload()
    tags = log.Tags()
    assert set(tags["scalars"]) == {
        *(f"train/{name}" for name in ("loss", "classification", "box", "landmark", "lr", "epoch")),
        "validation/ap",
    }
    assert [event.step for event in log.Scalars("train/loss")] == [*range(2, 25, 2)]
    assert [event.step for event in log.Scalars("validation/ap")] == [12, 24]
    assert set(tags["images"]) == {"train/batch", "validation/found"}
    picture = cv2.imdecode(
        np.frombuffer(log.Images("train/batch")[0].encoded_image_string, np.uint8), cv2.IMREAD_COLOR
    )
    assert picture is not None
    assert picture.shape == (640, 640, 3)  # four pictures
    assert len(np.unique(picture)) > 50
    assert json.loads((trained / "run.json").read_text())["pictures"] == 8


def test_the_best_weights_are_those_of_the_best_validation_and_patience_ends_it(
    make: Callable[..., Trainer],
) -> None:
    validator = Scripted(0.2, 0.5, 0.4, 0.5, 0.3, 0.9)
    changes = {"schedule.epochs": 9, "validation.patience": 3}
    result = make(changes=changes, validator=validator).run()
    # A figure that is as good is no new best: three without one after the second.
    assert len(validator.weights) == 5
    assert (result.finished, result.stopped, result.progress.step) == (True, False, 10)
    assert result.progress.best == 0.5
    assert result.best is not None
    assert_same_weights(result.best, validator.weights[1])
    assert result.last is not None
    assert_same_weights(result.last, validator.weights[4])
    # To go on with it is to do nothing.
    before = contents(result.best.parent)
    again = make(changes=changes, validator=validator)
    assert again.resumed
    repeated = again.run()
    assert (repeated.finished, repeated.progress.step, len(validator.weights)) == (True, 10, 5)
    assert contents(result.best.parent) == before


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_worker_that_is_killed(make: Callable[..., Trainer]) -> None:
    trainer = make(changes={"schedule.epochs": 500}, workers=1)

    def kill(_: Any) -> None:
        loader = loaders[0]._loader
        os.kill(loader._iterator._workers[0].pid, signal.SIGKILL)

    loaders: list[Any] = []
    original = trainer_module.BatchLoader

    class Seen(original):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            loaders.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "BatchLoader", Seen)
        with pytest.raises(RetinaFaceError, match=r"a process that loads pictures was ended; fewer workers"):
            trainer.run(progress=kill)


def test_a_figure_that_is_no_number_is_never_the_best(make: Callable[..., Trainer]) -> None:
    validator = Scripted(float("nan"), 0.1)
    result = make(changes={"schedule.epochs": 2}, validator=validator).run()
    assert result.progress.best == 0.1
    assert result.best is not None
    assert_same_weights(result.best, validator.weights[1])


# What goes wrong


def test_a_loss_that_is_no_number(make: Callable[..., Trainer]) -> None:
    changes = {"optimiser.kind": "sgd", "optimiser.lr": 1e30, "schedule.epochs": 5}
    changes |= {"optimiser.clip_norm": 1e30}
    trainer = make(changes=changes)
    with pytest.raises(RetinaFaceError, match=r"the loss is (nan|inf) at step \d+: lower optimiser.lr, .*"):
        trainer.run()


@pytest.mark.parametrize("clip", [10.0, None])
def test_a_gradient_that_is_no_number_changes_nothing(
    clip: float | None, make: Callable[..., Trainer]
) -> None:
    """At a finite loss: its weights would be the checkpoint that the message names."""
    changes = {"optimiser.clip_norm": clip, "training.ema_decay": 0.9, "schedule.epochs": 5}
    trainer = make(changes=changes)
    network = trainer._learner._network.module
    parameter = next(network.parameters())

    def spoil(state: Any) -> None:
        if state.step == 3:
            parameter.register_hook(lambda gradient: gradient * float("nan"))

    with pytest.raises(
        RetinaFaceError, match=r"the gradient is nan at step 4: lower .*; the last checkpoint"
    ):
        trainer.run(progress=spoil)
    average = trainer._learner._average
    assert average is not None
    weights = [*network.parameters(), *average.module.parameters()]
    assert all(bool(one.isfinite().all()) for one in weights)
    assert make(changes=changes).step == 2


def test_weights_that_are_not_finite_are_not_saved(make: Callable[..., Trainer]) -> None:
    trainer = make()
    with torch.no_grad():
        name, buffer = next(iter(trainer._learner._network.module.named_buffers()))
        buffer.fill_(float("inf"))
    with pytest.raises(RetinaFaceError, match=rf"network: {name} is no longer finite at step 1: "):
        trainer._save(None)
    assert not list(trainer.output.glob("checkpoints/*"))


def test_a_gradient_that_overflows_16_bits_skips_the_step(make: Callable[..., Trainer]) -> None:
    trainer = make(changes={"training.ema_decay": 0.9, "training.precision": "bf16-mixed"})
    learner = trainer._learner
    # As on a GPU, which alone has 16-mixed; the first scale is too large.
    learner._fabric.strategy.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    updates, weights = [], []

    def see(state: Any) -> None:
        assert learner._average is not None
        updates.append(learner._average.state_dict()["updates"])
        weights.append([one.detach().clone() for one in learner._network.parameters()])

    trainer.run(progress=see)
    assert len(updates) == 4
    assert learner.skipped > 0
    assert updates[-1] == 4 - learner.skipped
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    state = json.loads((trainer.output / "checkpoints" / "step-00000004" / "state.json").read_text())
    assert state["skipped"] == learner.skipped
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trainer.output / "log"))
    events.Reload()
    scales = [event.value for event in events.Scalars("train/scale")]
    assert scales == [2.0 ** (126 - step) for step in range(4)]


def test_gradients_that_always_overflow_end_the_run(make: Callable[..., Trainer]) -> None:
    trainer = make(changes={"training.precision": "bf16-mixed", "schedule.epochs": 100})
    trainer._learner._fabric.strategy.precision.scaler = torch.amp.GradScaler("cpu")
    parameter = next(trainer._learner._network.module.parameters())
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(RetinaFaceError, match=r"100 steps in a row overflow 16 bits.*training\.precision"):
        trainer.run()


def test_the_last_weights_state_only_what_was_measured_on_them(make: Callable[..., Trainer]) -> None:
    changes = {"schedule.epochs": 4, "validation.every": 2, "validation.patience": 1}
    seen: dict[int, dict[str, str]] = {}
    trainer = make(changes=changes, validator=Scripted(0.5, 0.25))

    def see(state: Any) -> None:
        if state.losses and state.step in {3, 5, 7}:
            seen[state.step // 2] = dict(load_weights(trainer.output / "last.safetensors").metadata)

    trainer.run(progress=see)
    assert "validation_ap" not in seen[1]
    assert (json.loads(seen[2]["validation_ap"]), seen[2]["validation_epoch"]) == ({"ap": 0.5}, "2")
    assert "validation_ap" not in seen[3]
    best, last = (load_weights(trainer.output / f"{name}.safetensors").metadata for name in ("best", "last"))
    assert (json.loads(best["validation_ap"]), best["validation_epoch"]) == ({"ap": 0.5}, "2")
    assert (json.loads(last["validation_ap"]), last["validation_epoch"]) == ({"ap": 0.25}, "4")


def test_killed_between_a_validation_and_its_checkpoint_logs_it_once(make: Callable[..., Trainer]) -> None:
    trainer = make(changes={"schedule.epochs": 1}, validator=Scripted(0.5))
    original, saves = trainer._save, []

    def save(log: Any) -> None:
        saves.append(1)
        if len(saves) == 2:
            raise KeyboardInterrupt
        original(log)

    trainer._save = save  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    make(changes={"schedule.epochs": 1}, validator=Scripted(0.5)).run()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trainer.output / "log"))
    events.Reload()
    assert [event.step for event in events.Scalars("validation/ap")] == [2]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_decoded(workers: int, make: Callable[..., Trainer], tmp_path: Path) -> None:
    folder = write_data(tmp_path / "bad", pictures=8)
    picture = folder / "images" / "3.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    bad = read_records(folder).records
    told: list[str] = []
    result = make("skip", {"schedule.epochs": 3}, records=bad, workers=workers).run(fault=told.append)
    assert len(told) == 1
    assert told[0].startswith(f"{bad[3].source}: expected a picture, got")
    assert result.faults == tuple(told)
    assert result.progress.step == 6
    with pytest.raises(DatasetError) as caught:
        make("fail", records=bad, workers=workers, on_fault="fail").run()
    # The message says which picture, and not which worker.
    assert str(caught.value).startswith(f"{bad[3].source}: expected a picture, got")
    assert "\n" not in str(caught.value)


def test_another_recipe_or_other_data_in_the_same_folder(
    make: Callable[..., Trainer], records: Sequence[Record]
) -> None:
    make().run()
    with pytest.raises(DatasetError, match=r"holds a run with other recipe.optimiser.lr: name another"):
        make(changes={"optimiser.lr": 0.5})
    with pytest.raises(DatasetError, match=r"with other data: "):
        make(records=records[::-1])
    with pytest.raises(DatasetError, match=r"with other data, faces, pictures: "):
        make(records=records[:5])
    with pytest.raises(DatasetError, match=r"with other recipe.schedule.epochs: "):
        make(changes={"schedule.epochs": 3})


def test_a_folder_that_cannot_be(make: Callable[..., Trainer], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="file"):
        make("file")
    with pytest.raises(DatasetError, match="file"):
        make("file/below")
    assert (tmp_path / "file").read_text() == ""
    make("run").run()
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(DatasetError, match=r"holds checkpoints and no run.json: name another folder"):
        make("run")


def test_a_checkpoint_that_is_damaged_is_named(make: Callable[..., Trainer], tmp_path: Path) -> None:
    make().run()
    (latest,) = (tmp_path / "run" / "checkpoints").glob("step-00000004")
    (latest / "network.safetensors").write_bytes(b"damaged")
    with pytest.raises(RetinaFaceError, match="step-00000004 is not a checkpoint that can be read"):
        make()


def test_two_runs_in_one_folder(make: Callable[..., Trainer], tmp_path: Path) -> None:
    first = make()
    with pytest.raises(DatasetError, match=r"run: another process is training there; wait for it, or end it"):
        make()
    first.run()
    other = make()
    assert other.resumed
    with pytest.raises(DatasetError, match=r"run: another process is training there"):
        first.run()
    other.run()
    first.run()
    failed = recipe(tmp_path, {"optimiser.frozen": ["nothing"]})
    for _ in range(2):  # a trainer that could not be made does not keep the folder
        with pytest.raises(ValueError, match="frozen"):
            _made(failed, first, tmp_path)


def _made(changed: Recipe, trainer: Trainer, tmp_path: Path) -> Trainer:
    return Trainer(changed, trainer._dataset.records, tmp_path / "other", workers=0, device="cpu")


@pytest.mark.parametrize("name", ["checkpoints", "last.safetensors", "log"])
def test_a_disk_that_is_full(
    name: str, make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, os.strerror(28))

    target = {
        "checkpoints": "retinaface_fast.training.checkpoint.save_file",
        "last.safetensors": "retinaface_fast.training.trainer.save_weights",
        "log": "torch.utils.tensorboard.writer.SummaryWriter.add_scalar",
    }[name]
    trainer = make()
    monkeypatch.setattr(target, full)
    with pytest.raises(DatasetError, match=rf"cannot write .*run.*: {os.strerror(28)}"):
        trainer.run()
