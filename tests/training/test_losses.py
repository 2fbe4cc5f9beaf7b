from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from retinaface_fast.network.retinaface import NetworkOutputs
from retinaface_fast.training.batch import BatchTargets
from retinaface_fast.training.losses import LossTerms, MultiTaskLoss
from retinaface_fast.training.recipe import LossSection
from tests.reference import multi_task_loss as reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LEVELS = (40, 10, 4)
ANCHORS = sum(LEVELS)


def make_outputs(seed: int, pictures: int, dtype: torch.dtype = torch.float64) -> NetworkOutputs:
    rng = np.random.default_rng(seed)
    kinds = [
        tuple(
            torch.tensor(rng.normal(0, 2, (pictures, anchors, numbers)), dtype=dtype, requires_grad=True)
            for anchors in LEVELS
        )
        for numbers in (2, 4, 10)
    ]
    return NetworkOutputs(*kinds)


def make_targets(seed: int, faces: Sequence[int], *, left_out: int = 5, known: float = 0.7) -> BatchTargets:
    """So many face anchors in each picture."""
    rng = np.random.default_rng(seed + 1000)
    labels = np.zeros((len(faces), ANCHORS), np.int8)
    for picture, count in enumerate(faces):
        places = rng.permutation(ANCHORS)
        labels[picture, places[:count]] = 1
        labels[picture, places[count : count + left_out]] = -1
    positives = np.flatnonzero(labels.ravel() == 1)
    mask = rng.random((len(positives), 5)) < known
    if len(mask) > 2:
        mask[:2] = [[True] * 5, [False] * 5]
    landmark_deltas = rng.normal(0, 2, (len(positives), 10)) * np.repeat(mask, 2, axis=1)
    return BatchTargets(
        torch.from_numpy(labels),
        torch.from_numpy(positives),
        torch.tensor(rng.normal(0, 2, (len(positives), 4)), dtype=torch.float32),
        torch.tensor(landmark_deltas, dtype=torch.float32),
        torch.from_numpy(mask),
    )


def as_arrays(outputs: NetworkOutputs) -> list[np.ndarray]:
    return [torch.cat(levels, 1).detach().double().numpy() for levels in outputs]


def oracle(outputs: NetworkOutputs, targets: BatchTargets, config: LossSection) -> reference.Sums:
    return reference.sums(
        *as_arrays(outputs),
        BatchTargets(*(tensor.numpy() for tensor in targets)),
        ratio=config.negatives_per_positive,
        least=config.min_negatives,
        box_beta=config.box_beta,
        landmark_beta=config.landmark_beta,
    )


def numbers(terms: LossTerms) -> list[float]:
    return [term.item() for term in terms]


def expected_terms(sums: reference.Sums, config: LossSection) -> list[float]:
    classification = sums.classification / max(sums.positives, 1)
    box = sums.box / max(sums.positives, 1)
    landmark = sums.landmark / max(sums.landmark_faces, 1)
    total = config.class_weight * classification + config.box_weight * box + config.landmark_weight * landmark
    return [total, classification, box, landmark, 0.0]


CONFIGS = {
    "usual": LossSection(),
    "few negatives": LossSection(negatives_per_positive=1.5, min_negatives=3),
    "all negatives": LossSection(negatives_per_positive=100),
    "other weights": LossSection(
        class_weight=0.5, box_weight=0.25, landmark_weight=0.1, box_beta=0.1, landmark_beta=3
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("faces", [(3, 1, 6), (4, 0), (0,), (0, 0), (49,), (1,)])
def test_is_what_the_definition_says(config: LossSection, faces: tuple[int, ...]) -> None:
    targets = make_targets(1, faces)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        outputs = make_outputs(2, len(faces), dtype)
        terms = MultiTaskLoss(config)(outputs, targets)
        assert all(term.dtype == dtype and term.shape == () for term in terms)
        expected = expected_terms(oracle(outputs, targets, config), config)
        np.testing.assert_allclose(numbers(terms), expected, rtol=tolerance)


@pytest.mark.parametrize("size", [30.0, 100.0, 3e4])
def test_large_logits(size: float) -> None:
    """Neither infinite nor zero where softmax itself would be."""
    outputs, targets = make_outputs(1, 2), make_targets(1, (3, 2))
    outputs = outputs._replace(
        class_logits=tuple((size * level).detach().requires_grad_() for level in outputs.class_logits)
    )
    terms = MultiTaskLoss(LossSection())(outputs, targets)
    expected = expected_terms(oracle(outputs, targets, LossSection()), LossSection())
    np.testing.assert_allclose(numbers(terms), expected, rtol=1e-9)
    terms.total.backward()
    assert all(torch.isfinite(level.grad).all() for level in outputs.class_logits)


def gradients(loss: torch.Tensor, outputs: NetworkOutputs) -> list[np.ndarray]:
    flat = [tensor for levels in outputs for tensor in levels]
    found = iter(torch.autograd.grad(loss, flat))
    return [torch.cat([next(found) for _ in levels], 1).numpy() for levels in outputs]


def test_the_hardest_negatives_take_part() -> None:
    config = LossSection(negatives_per_positive=3, min_negatives=2)
    outputs, targets = make_outputs(3, 4), make_targets(3, (2, 0, 5, 40))
    terms = MultiTaskLoss(config)(outputs, targets)
    taking_part = gradients(terms.total, outputs)[0].any(axis=2)
    logits, labels = as_arrays(outputs)[0], targets.labels.numpy()
    counts = []
    for picture in range(4):
        hard = reference.hard_negatives(logits[picture], labels[picture], 3, 2)
        faces = np.flatnonzero(labels[picture] == 1).tolist()
        assert np.flatnonzero(taking_part[picture]).tolist() == sorted(hard + faces)
        counts.append(len(hard))
    assert counts == [6, 2, 15, ANCHORS - 40 - 5]  # the last has no more background


def test_equal_losses_are_counted_once_each() -> None:
    """As from a network whose class head begins at zero: still no more negatives than asked for."""
    config = LossSection(negatives_per_positive=3)
    outputs, targets = make_outputs(3, 2), make_targets(3, (2, 4))
    outputs = outputs._replace(
        class_logits=tuple(torch.zeros_like(level, requires_grad=True) for level in outputs.class_logits)
    )
    terms = MultiTaskLoss(config)(outputs, targets)
    assert terms.classification.item() == pytest.approx((6 + 18) * math.log(2) / 6, rel=1e-12)
    taking_part = gradients(terms.total, outputs)[0].any(axis=2)
    assert taking_part.sum(axis=1).tolist() == [8, 16]
    assert not taking_part[targets.labels.numpy() == -1].any()


def test_anchors_that_are_left_out_do_not_matter() -> None:
    targets = make_targets(5, (3, 2), left_out=20)
    plain, changed = make_outputs(5, 2), make_outputs(5, 2)
    left_out = torch.split(targets.labels == -1, LEVELS, dim=1)
    for value in (100.0, -100.0, float("nan")):
        with torch.no_grad():
            for level, out in zip(changed.class_logits, left_out, strict=True):
                level[..., 1][out] = value
        results = [MultiTaskLoss(LossSection())(each, targets) for each in (plain, changed)]
        assert numbers(results[0]) == numbers(results[1])
        for kind in gradients(results[1].total, changed):
            assert np.isfinite(kind).all()
            assert not kind[targets.labels.numpy() == -1].any()


def test_only_known_landmarks_count() -> None:
    targets = make_targets(6, (6, 3), known=0.5)
    mask = targets.landmark_mask
    assert mask.any(1).tolist().count(False) >= 1
    outputs = make_outputs(6, 2)
    terms = MultiTaskLoss(LossSection())(outputs, targets)
    of_landmarks = gradients(terms.total, outputs)[2].reshape(-1, 5, 2)
    expected = np.zeros((2 * ANCHORS, 5), bool)
    expected[targets.positives.numpy()] = mask.numpy()
    np.testing.assert_array_equal((of_landmarks != 0).all(axis=2), expected)
    np.testing.assert_array_equal((of_landmarks != 0).any(axis=2), expected)
    # What is said of unknown ones, and what stands in their targets, is the same to it.
    again = MultiTaskLoss(LossSection())(
        outputs, targets._replace(landmark_deltas=targets.landmark_deltas + 9 * ~mask.repeat_interleave(2, 1))
    )
    assert numbers(again) == numbers(terms)


def test_no_landmarks_at_all() -> None:
    targets = make_targets(7, (2, 1), known=0)
    targets = targets._replace(landmark_mask=torch.zeros_like(targets.landmark_mask))
    outputs = make_outputs(7, 2)
    terms = MultiTaskLoss(LossSection())(outputs, targets)
    assert terms.landmark.item() == 0
    assert math.isfinite(terms.total.item())
    assert not gradients(terms.total, outputs)[2].any()


@pytest.mark.parametrize("least", [0, 4])
def test_no_faces_in_the_batch(least: int) -> None:
    outputs, targets = make_outputs(8, 2), make_targets(8, (0, 0))
    terms = MultiTaskLoss(LossSection(min_negatives=least))(outputs, targets)
    assert [terms.box.item(), terms.landmark.item()] == [0, 0]
    assert (terms.classification.item() > 0) == (least > 0)
    of_class, *others = gradients(terms.total, outputs)  # every output is reached
    assert not any(kind.any() for kind in others)
    assert np.isfinite(of_class).all()
    assert of_class.any(axis=2).sum(axis=1).tolist() == [least, least]


def test_gradients_are_those_of_the_loss() -> None:
    outputs, targets = make_outputs(9, 1), make_targets(9, (3,))
    config = LossSection(negatives_per_positive=2, box_beta=0.7, landmark_beta=2)

    def total(*flat: torch.Tensor) -> torch.Tensor:
        return MultiTaskLoss(config)(NetworkOutputs(flat[:3], flat[3:6], flat[6:]), targets).total

    flat = [tensor for levels in outputs for tensor in levels]
    assert torch.autograd.gradcheck(total, flat)


def nudged(outputs: NetworkOutputs, kind: int, place: tuple[int, int, int], by: float) -> NetworkOutputs:
    picture, anchor, number = place
    level, start = 0, 0
    while anchor >= start + LEVELS[level]:
        start += LEVELS[level]
        level += 1
    copies = [[tensor.detach().clone() for tensor in levels] for levels in outputs]
    copies[kind][level][picture, anchor - start, number] += by
    return NetworkOutputs(*(tuple(levels) for levels in copies))


def test_gradients_by_finite_differences_of_the_oracle() -> None:
    outputs, targets = make_outputs(10, 3), make_targets(10, (3, 0, 4))
    config = LossSection(negatives_per_positive=2, min_negatives=1, box_weight=1.5)
    found = gradients(MultiTaskLoss(config)(outputs, targets).total, outputs)
    rng, step, differing = np.random.default_rng(0), 1e-6, 0
    for kind, width in enumerate((2, 4, 10)):
        faces = [divmod(int(place), ANCHORS) for place in targets.positives]
        anywhere = [(int(rng.integers(3)), int(rng.integers(ANCHORS))) for _ in range(8)]
        for picture, anchor in faces + anywhere:
            place = (picture, anchor, int(rng.integers(width)))
            above, below = (
                expected_terms(oracle(nudged(outputs, kind, place, by), targets, config), config)[0]
                for by in (step, -step)
            )
            assert found[kind][place] == pytest.approx((above - below) / (2 * step), abs=1e-7)
            differing += above != below
    assert differing > 15


def parts_of(
    outputs: NetworkOutputs, targets: BatchTargets, cut: int
) -> Iterator[tuple[NetworkOutputs, BatchTargets]]:
    for first, last in ((0, cut), (cut, len(targets.labels))):
        inside = (targets.positives >= first * ANCHORS) & (targets.positives < last * ANCHORS)
        yield (
            NetworkOutputs(*(tuple(level[first:last] for level in levels) for levels in outputs)),
            BatchTargets(
                targets.labels[first:last],
                targets.positives[inside] - first * ANCHORS,
                targets.box_deltas[inside],
                targets.landmark_deltas[inside],
                targets.landmark_mask[inside],
            ),
        )


@pytest.mark.parametrize("as_tensors", [True, False])
@pytest.mark.parametrize("faces", [(3, 1, 0, 5), (0, 0, 2, 1), (0, 0, 0, 0)])
def test_parts_with_the_normalisers_of_the_whole_add_up(as_tensors: bool, faces: tuple[int, ...]) -> None:
    outputs, targets = make_outputs(11, 4), make_targets(11, faces)
    loss = MultiTaskLoss(LossSection(min_negatives=2))
    whole = loss(outputs, targets)
    counts: dict[str, Any] = {
        "positives": len(targets.positives),
        "landmark_faces": int(targets.landmark_mask.any(1).sum()),
    }
    if as_tensors:
        counts = {name: torch.tensor(value) for name, value in counts.items()}
    parts = [loss(*part, **counts) for part in parts_of(outputs, targets, 2)]
    added = [a + b for a, b in zip(numbers(parts[0]), numbers(parts[1]), strict=True)]
    np.testing.assert_allclose(added, numbers(whole), rtol=1e-12)
    of_whole = gradients(whole.total, outputs)
    of_parts = gradients(parts[0].total + parts[1].total, outputs)
    for ours, theirs in zip(of_parts, of_whole, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


def test_normalisers_are_at_least_one() -> None:
    outputs, targets = make_outputs(12, 1), make_targets(12, (0,))
    loss = MultiTaskLoss(LossSection(min_negatives=5))
    plain = numbers(loss(outputs, targets))
    assert plain[1] > 0
    for nothing in (0, 0.25, torch.tensor(0), torch.tensor(0.25)):
        assert numbers(loss(outputs, targets, positives=nothing, landmark_faces=nothing)) == plain


def test_a_dense_term() -> None:
    outputs, targets = make_outputs(13, 2), make_targets(13, (2, 3))
    seen = []

    def dense(said: NetworkOutputs, wanted: BatchTargets) -> torch.Tensor:
        seen.append((said, wanted))
        return said.box_deltas[1].square().sum() / len(wanted.positives)

    config = LossSection(dense_weight=0.5)
    plain = MultiTaskLoss(config)(outputs, targets)
    terms = MultiTaskLoss(config, dense=dense)(outputs, targets)
    [(said, wanted)] = seen
    assert said is outputs
    assert wanted is targets
    value = (as_arrays(outputs)[1][:, 40:50] ** 2).sum() / 5
    assert plain.dense.item() == 0
    assert terms.dense.item() == pytest.approx(value, rel=1e-12)
    assert terms.total.item() == pytest.approx(plain.total.item() + 0.5 * value, rel=1e-12)
    assert numbers(terms)[1:4] == numbers(plain)[1:4]
    difference = gradients(terms.total, outputs)[1] - gradients(plain.total, outputs)[1]
    of_dense = as_arrays(outputs)[1] / 5
    of_dense[:, :40] = of_dense[:, 50:] = 0
    np.testing.assert_allclose(difference, of_dense, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_is_computed_in_float32_under_autocast(dtype: torch.dtype) -> None:
    outputs, targets = make_outputs(14, 2, dtype), make_targets(14, (2, 3))

    def dense(said: NetworkOutputs, _: BatchTargets) -> torch.Tensor:
        rows = said.box_deltas[0].flatten(0, 1).float()
        return (rows @ rows.T).sum()  # a product is what autocast would do in the smaller type

    with torch.autocast("cpu", dtype=dtype):
        terms = MultiTaskLoss(LossSection(), dense=dense)(outputs, targets)
    assert all(term.dtype == torch.float32 for term in terms)
    expected = expected_terms(oracle(outputs, targets, LossSection()), LossSection())
    np.testing.assert_allclose(numbers(terms)[:4], expected[:4], rtol=1e-6)
    terms.total.backward()
    assert all(level.grad is not None and level.grad.dtype == dtype for level in outputs.box_deltas)


def test_outputs_and_targets_of_different_shapes() -> None:
    with pytest.raises(ValueError, match=r"^targets: expected labels of shape \(2, 54\).* got \(3, 54\)$"):
        MultiTaskLoss(LossSection())(make_outputs(1, 2), make_targets(1, (1, 1, 1)))


def test_has_no_parameters() -> None:
    loss = MultiTaskLoss(LossSection())
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}
