from __future__ import annotations

import types

import numpy as np
import pytest
import torch

from retinaface_fast.network import CONFIGS, RetinaFace, fold_batch_norm
from retinaface_fast.training.initialisation import initialise
from retinaface_fast.training.unfolding import restore_batch_norm, unfold_batch_norm

SMALL = CONFIGS["mobilenet0.25"]


def pictures(seed: int, count: int = 4) -> torch.Tensor:
    return 50 * torch.randn(count, 3, 96, 96, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def trained() -> RetinaFace:
    """A network whose batch norms are not the identity, and have seen pictures."""
    network = initialise(SMALL, None, seed=1).network
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".norm.weight"):
                parameter.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(".norm.bias"):
                parameter.normal_(0.0, 0.3, generator=generator)
        for _ in range(80):  # the running statistics become those of the batch: 0.9 ** 80 is 0.02%
            network(pictures(3))
    return network.eval()


@pytest.fixture
def folded(trained: RetinaFace) -> RetinaFace:
    arrays = fold_batch_norm(
        {
            name: tensor.numpy()
            for name, tensor in trained.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
    )
    network = RetinaFace(SMALL, folded=True)
    network.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return network


def assert_close(found: RetinaFace, expected: RetinaFace, images: torch.Tensor, *, relative: float) -> None:
    with torch.no_grad():
        for some, others in zip(found(images), expected(images), strict=True):
            for values, expected_values in zip(some, others, strict=True):
                atol = relative * float(expected_values.std())
                torch.testing.assert_close(values, expected_values, rtol=0, atol=atol)


def test_nothing_changes(folded: RetinaFace) -> None:
    unfolded = unfold_batch_norm(folded, [pictures(3)])
    assert unfolded.training
    # Other pictures than those that were measured.
    assert_close(unfolded.eval(), folded.eval(), pictures(4), relative=1e-4)


def test_training_begins_where_the_folded_network_stands(folded: RetinaFace) -> None:
    unfolded = unfold_batch_norm(folded, [pictures(3)])
    # Normalised by these very pictures, whose statistics were measured.
    assert_close(unfolded.train(), folded.eval(), pictures(3), relative=1e-3)


def test_what_batch_norm_had_measured(trained: RetinaFace, folded: RetinaFace) -> None:
    unfolded = unfold_batch_norm(folded, [pictures(3)])
    # Batch norm makes a signal of its own scale and shift out of any. Deeper layers have few pixels here, and
    # torch's running variance is that of a sample: n - 1.
    for layer in ("stem", "blocks.0.depthwise", "blocks.0.pointwise", "blocks.1.depthwise"):
        expected = trained.backbone.get_submodule(layer).norm
        found = unfolded.backbone.get_submodule(layer).norm
        torch.testing.assert_close(found.bias, expected.bias, rtol=0, atol=0.03)
        torch.testing.assert_close(found.weight, expected.weight, rtol=0.03, atol=0)


def test_several_batches_are_one(folded: RetinaFace) -> None:
    whole = unfold_batch_norm(folded, [pictures(3)]).state_dict()
    parts = unfold_batch_norm(folded, iter(pictures(3).split([1, 3]))).state_dict()
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_channel_that_never_changes(folded: RetinaFace) -> None:
    with torch.no_grad():
        folded.backbone.stem.conv.weight[2] = 0.0
    unfolded = unfold_batch_norm(folded, [pictures(3)])
    assert float(unfolded.backbone.stem.norm.running_var[2]) < 1e-12
    assert_close(unfolded.eval(), folded.eval(), pictures(4), relative=1e-4)


def test_the_folded_network_is_left_as_it_was(folded: RetinaFace) -> None:
    folded.train()
    before = {name: tensor.clone() for name, tensor in folded.state_dict().items()}
    unfolded = unfold_batch_norm(folded, [pictures(3)])
    with torch.no_grad():
        for parameter in unfolded.parameters():
            parameter.zero_()
    assert folded.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in folded.state_dict().items())
    assert not any(module._forward_hooks for module in folded.modules())


class Counted:
    """In place of a data set: which of its pictures are asked for."""

    def __init__(self, length: int, seed: int) -> None:
        self.seed = seed
        self.keys: list[tuple[int, int]] = []
        self._length = length

    def __len__(self) -> int:
        return self._length

    def augmented(self, key: tuple[int, int]) -> tuple[types.SimpleNamespace, list[str]]:
        self.keys.append(key)
        image = np.random.default_rng(key).integers(0, 256, (32, 32, 3), np.uint8)
        return types.SimpleNamespace(image=image), []


def test_the_pictures_that_are_measured_are_drawn(folded: RetinaFace) -> None:
    """Those of a list that is sorted by event would be those of one event."""

    def keys(length: int, seed: int) -> list[tuple[int, int]]:
        dataset = Counted(length, seed)
        restore_batch_norm(folded, dataset, device=torch.device("cpu"))  # type: ignore[arg-type]
        return dataset.keys

    drawn = keys(2000, 5)
    indices = [index for _, index in drawn]
    assert {epoch for epoch, _ in drawn} == {0}
    assert len(set(indices)) == 256
    # 128 of each half are expected; the standard deviation is 7.5.
    assert abs(sum(index < 1000 for index in indices) - 128) < 5 * 7.5
    assert keys(2000, 5) == drawn
    assert keys(2000, 6) != drawn
    assert sorted(keys(20, 5)) == [(0, index) for index in range(20)]


def test_errors(trained: RetinaFace, folded: RetinaFace) -> None:
    with pytest.raises(ValueError, match="network: expected one whose batch norm is folded in"):
        unfold_batch_norm(trained, [pictures(3)])
    with pytest.raises(ValueError, match="images: expected at least one batch, got none"):
        unfold_batch_norm(folded, [])
