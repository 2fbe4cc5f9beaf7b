from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

from retinaface_fast.network import CONFIGS, RetinaFace
from retinaface_fast.training.optimisation import WeightAverage, build_optimiser, lr_factor, train_mode
from retinaface_fast.training.recipe import OptimiserSection, ScheduleSection

if TYPE_CHECKING:
    from collections.abc import Callable


class Bending(nn.Module):
    """A layer named like a deformable convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)
        self.offset = nn.Conv2d(2, 27, 3)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(11))
        self.context = Bending()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.norm(x)
        return out


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small()


def names_of(network: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(parameter)] for parameter in parameters}


def test_one_group_without_deformable_convolutions() -> None:
    network = RetinaFace(CONFIGS["mobilenet0.25"])
    optimiser = build_optimiser(network, OptimiserSection(lr=0.25, momentum=0.5, weight_decay=0.125))
    (group,) = optimiser.param_groups
    assert names_of(network, group["params"]) == {name for name, _ in network.named_parameters()}
    found = {key: group[key] for key in ("name", "lr", "initial_lr", "momentum", "weight_decay", "nesterov")}
    assert found == {
        "name": "normal",
        "lr": 0.25,
        "initial_lr": 0.25,
        "momentum": 0.5,
        "weight_decay": 0.125,
        "nesterov": False,
    }


def test_offsets_learn_at_a_rate_of_their_own(small: Small) -> None:
    optimiser = build_optimiser(small, OptimiserSection(lr=0.5, offset_lr_factor=0.25, nesterov=True))
    normal, offsets = optimiser.param_groups
    assert names_of(small, offsets["params"]) == {"context.offset.weight", "context.offset.bias"}
    assert names_of(small, normal["params"]) == {
        name for name, _ in small.named_parameters() if ".offset." not in name
    }
    assert (normal["lr"], normal["initial_lr"], normal["name"]) == (0.5, 0.5, "normal")
    assert (offsets["lr"], offsets["initial_lr"], offsets["name"]) == (0.125, 0.125, "offsets")
    assert normal["nesterov"]
    assert offsets["nesterov"]


def test_steps_are_those_of_the_formula() -> None:
    """SGD as Sutskever et al. 2013 and torch's documentation state it, in float64."""
    weight = nn.Linear(1, 1, bias=False).double()
    weight.weight.data.fill_(3.0)
    lr, momentum, decay = 0.1, 0.9, 0.01
    optimiser = build_optimiser(weight, OptimiserSection(lr=lr, momentum=momentum, weight_decay=decay))
    expected, velocity = 3.0, 0.0
    for gradient in (1.0, -2.0, 0.5):
        weight.weight.grad = torch.full_like(weight.weight, gradient)
        optimiser.step()
        velocity = momentum * velocity + gradient + decay * expected
        expected -= lr * velocity
    assert weight.weight.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("prefix", ["blocks.1", "blocks.1."])
def test_frozen_parts_are_whole_parts(prefix: str, small: Small) -> None:
    optimiser = build_optimiser(small, OptimiserSection(frozen=(prefix, "context.conv.bias")))
    still = {name for name, parameter in small.named_parameters() if not parameter.requires_grad}
    assert still == {"blocks.1.weight", "blocks.1.bias", "context.conv.bias"}
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    assert names_of(small, trained) == {name for name, _ in small.named_parameters()} - still


def test_what_is_frozen_does_not_move(small: Small) -> None:
    optimiser = build_optimiser(small, OptimiserSection(lr=0.1, frozen=("blocks.3",)))
    before = {name: parameter.clone() for name, parameter in small.named_parameters()}
    small(torch.ones(4, 2).cumsum(0)).square().sum().backward()
    optimiser.step()
    after = dict(small.named_parameters())
    assert torch.equal(after["blocks.3.weight"], before["blocks.3.weight"])
    assert not torch.equal(after["blocks.4.weight"], before["blocks.4.weight"])


def test_thawing(small: Small) -> None:
    build_optimiser(small, OptimiserSection(frozen=("blocks",)))
    build_optimiser(small, OptimiserSection())
    assert all(parameter.requires_grad for parameter in small.parameters())


def test_a_prefix_that_matches_nothing(small: Small) -> None:
    with pytest.raises(
        ValueError, match=r"frozen: no parameter begins with 'block'; there are blocks\.0, bl"
    ):
        build_optimiser(small, OptimiserSection(frozen=("blocks.0", "block")))
    assert all(parameter.requires_grad for parameter in small.parameters())


def test_nothing_left_to_train(small: Small) -> None:
    with pytest.raises(ValueError, match=r"frozen: blocks, context, norm leave nothing to train"):
        build_optimiser(small, OptimiserSection(frozen=("blocks", "context", "norm")))


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    network = RetinaFace(CONFIGS["mobilenet0.25"])
    train_mode(network, ["backbone.stem", "backbone.blocks.1"])
    network(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    counted = {
        name.removesuffix(".num_batches_tracked")
        for name, buffer in network.named_buffers()
        if name.endswith("num_batches_tracked") and buffer == 0
    }
    assert counted == {
        "backbone.stem.norm",
        "backbone.blocks.1.depthwise.norm",
        "backbone.blocks.1.pointwise.norm",
    }
    train_mode(network)
    assert all(module.training for module in network.modules())


def factors(config: ScheduleSection, steps_per_epoch: int) -> list[float]:
    steps = config.epochs * steps_per_epoch
    return [lr_factor(config, step=step, steps_per_epoch=steps_per_epoch) for step in range(steps)]


def oracle(build: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
    """Learning rates that torch's own schedulers give to an optimiser of rate 1."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR calls its own deprecated signature
        scheduler = build(optimiser)
        rates = []
        for _ in range(steps):
            rates.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            scheduler.step()
    return rates


@pytest.mark.parametrize(("milestones", "gamma"), [((2, 5), 0.1), ((1, 2, 3), 0.5), ((), 0.1), ((6,), 0.1)])
def test_steps(milestones: tuple[int, ...], gamma: float) -> None:
    config = ScheduleSection(epochs=7, milestones=milestones, gamma=gamma)
    expected = oracle(
        lambda optimiser: MultiStepLR(optimiser, [5 * epoch for epoch in milestones], gamma), steps=35
    )
    assert factors(config, 5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("warmup_epochs", [1.0, 2.5, 0.125])
def test_warm_up_and_steps(warmup_epochs: float) -> None:
    config = ScheduleSection(epochs=7, milestones=(2, 5), warmup_epochs=warmup_epochs, warmup_factor=0.1)
    expected = oracle(
        lambda optimiser: ChainedScheduler(
            [
                LinearLR(optimiser, start_factor=0.1, total_iters=int(8 * warmup_epochs)),
                MultiStepLR(optimiser, [16, 40], 0.1),
            ]
        ),
        steps=56,
    )
    assert factors(config, 8) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("warmup_epochs", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("final_factor", [0.0, 0.05])
def test_cosine(warmup_epochs: float, final_factor: float) -> None:
    config = ScheduleSection(
        epochs=6, kind="cosine", final_factor=final_factor, warmup_epochs=warmup_epochs, warmup_factor=0.2
    )
    warmup = int(10 * warmup_epochs)

    def build(optimiser: torch.optim.Optimizer) -> Any:
        cosine = CosineAnnealingLR(optimiser, T_max=60 - warmup, eta_min=final_factor)
        if not warmup:
            return cosine
        linear = LinearLR(optimiser, start_factor=0.2, total_iters=warmup)
        return SequentialLR(optimiser, [linear, cosine], milestones=[warmup])

    assert factors(config, 10) == pytest.approx(oracle(build, steps=60), rel=1e-9)


def test_a_warm_up_of_no_whole_number_of_steps() -> None:
    config = ScheduleSection(epochs=2, kind="cosine", warmup_epochs=0.7, warmup_factor=0.1)
    # 2.1 steps: 0, 1 and 2 lie in it, and 3 lies 0.9 of 3.9 along the cosine.
    found = [lr_factor(config, step=step, steps_per_epoch=3) for step in range(4)]
    expected = [0.1, 0.1 + 0.9 / 2.1, 0.1 + 0.9 * 2 / 2.1, (1 + _cos(0.9 / 3.9)) / 2]
    assert found == pytest.approx(expected, rel=1e-12)


def _cos(part: float) -> float:
    return float(torch.cos(torch.tensor(part * torch.pi, dtype=torch.float64)))


def test_the_paper() -> None:
    config = ScheduleSection(epochs=80, milestones=(55, 68), warmup_epochs=5, warmup_factor=0.1)
    at = {epoch: 1e-2 * lr_factor(config, step=402 * epoch, steps_per_epoch=402) for epoch in range(81)}
    expected = {0: 1e-3, 5: 1e-2, 54: 1e-2, 55: 1e-3, 67: 1e-3, 68: 1e-4, 79: 1e-4}
    assert {epoch: at[epoch] for epoch in expected} == pytest.approx(expected)
    assert 1e-2 * lr_factor(config, step=402 * 55 - 1, steps_per_epoch=402) == pytest.approx(1e-2)


def test_after_the_end_a_cosine_stays_where_it_ended() -> None:
    config = ScheduleSection(epochs=3, kind="cosine", final_factor=0.25)
    assert [lr_factor(config, step=step, steps_per_epoch=2) for step in (6, 7, 100)] == [0.25] * 3


@pytest.mark.parametrize(
    ("step", "steps_per_epoch", "message"),
    [(-1, 10, "step: expected at least 0, got -1"), (0, 0, "steps_per_epoch: expected at least 1, got 0")],
)
def test_bad_steps(step: int, steps_per_epoch: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lr_factor(ScheduleSection(), step=step, steps_per_epoch=steps_per_epoch)


def trained_on(network: nn.Module, generator: torch.Generator) -> None:
    """Something that changes every tensor of a network."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    network.train()(torch.randn(8, 2, generator=generator))


@pytest.mark.parametrize("decay", [0.15, 0.3, 0.999])
def test_average_of_five_steps(decay: float, small: Small) -> None:
    average = WeightAverage(small, decay=decay)
    expected = {name: tensor.double() for name, tensor in small.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    for update in range(5):
        trained_on(small, generator)
        average.update(small)
        keep = min(decay, [1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14][update])
        for name, tensor in small.state_dict().items():
            if name.endswith("num_batches_tracked"):
                expected[name] = tensor.double()
            else:
                expected[name] = keep * expected[name] + (1 - keep) * tensor.double()
    found = average.module.state_dict()
    assert {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"} <= set(found)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].double(), tensor, rtol=1e-6, atol=1e-6)


def test_a_short_run_forgets_its_beginning(small: Small) -> None:
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.fill_(1.0)
    average = WeightAverage(small, decay=0.9999)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.fill_(0.0)
    for _ in range(100):
        average.update(small)
    # 0.9999 ** 100 would have left 0.99 of it.
    assert max(float(parameter.max()) for parameter in average.module.parameters()) < 1e-6


def test_the_average_is_for_evaluation_and_apart(small: Small) -> None:
    average = WeightAverage(small.train(), decay=0.5)
    assert not average.module.training
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    assert small.training
    assert all(parameter.requires_grad for parameter in small.parameters())
    before = {name: tensor.clone() for name, tensor in average.module.state_dict().items()}
    trained_on(small, torch.Generator().manual_seed(0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in average.module.state_dict().items())


def test_a_wrapper_of_the_network(small: Small) -> None:
    average, wrapped = WeightAverage(small, decay=0.5), WeightAverage(small, decay=0.5)
    trained_on(small, torch.Generator().manual_seed(0))
    average.update(small)
    wrapped.update(nn.Sequential(small))
    for name, tensor in average.module.state_dict().items():
        assert torch.equal(tensor, wrapped.module.state_dict()[name])


def test_going_on_from_a_state(small: Small) -> None:
    generator = torch.Generator().manual_seed(2)
    average = WeightAverage(small, decay=0.9)
    for _ in range(3):
        trained_on(small, generator)
        average.update(small)
    file = io.BytesIO()
    torch.save(average.state_dict(), file)
    file.seek(0)
    other = WeightAverage(Small(), decay=0.9)
    other.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(3):
        trained_on(small, generator)
        average.update(small)
        other.update(small)
    assert other.state_dict()["updates"] == 6
    for name, tensor in average.module.state_dict().items():
        assert torch.equal(tensor, other.module.state_dict()[name])


def test_another_network(small: Small) -> None:
    average = WeightAverage(small, decay=0.9)
    with pytest.raises(ValueError, match="network: expected the tensors of the network that is averaged"):
        average.update(nn.Linear(2, 2))


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, float("nan")])
def test_bad_decay(decay: float, small: Small) -> None:
    with pytest.raises(ValueError, match="decay: expected a number > 0 and < 1"):
        WeightAverage(small, decay=decay)
