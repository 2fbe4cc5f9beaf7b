from __future__ import annotations

import numpy as np
import pytest
import torch

from retinaface_fast.network import fold_batch_norm


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 6])
def test_a_folded_convolution_computes_the_same(bias: bool, groups: int) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(6, 12, 3, groups=groups, bias=bias)
    norm = torch.nn.BatchNorm2d(12).eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
        assert tensor is not None
        tensor.normal_()
    assert norm.running_var is not None
    norm.running_var.uniform_(0.01, 3.0)
    names = {f"a.conv.{key}": tensor for key, tensor in conv.state_dict().items()}
    names |= {f"a.norm.{key}": tensor for key, tensor in norm.state_dict().items()}
    del names["a.norm.num_batches_tracked"]
    folded = fold_batch_norm({name: tensor.numpy() for name, tensor in names.items()})
    assert sorted(folded) == ["a.conv.bias", "a.conv.weight"]
    assert {array.dtype for array in folded.values()} == {np.dtype(np.float32)}
    x = torch.randn(2, 6, 9, 9, dtype=torch.float64)
    expected = norm.double()(conv.double()(x))
    weight, new_bias = (torch.from_numpy(folded[f"a.conv.{part}"]).double() for part in ("weight", "bias"))
    torch.testing.assert_close(
        torch.nn.functional.conv2d(x, weight, new_bias, groups=groups), expected, rtol=1e-5, atol=1e-5
    )


def test_rounds_once() -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "a.conv.weight": rng.standard_normal((8, 4, 3, 3)).astype(np.float32),
        "a.norm.weight": rng.standard_normal(8).astype(np.float32),
        "a.norm.bias": rng.standard_normal(8).astype(np.float32),
        "a.norm.running_mean": rng.standard_normal(8).astype(np.float32),
        "a.norm.running_var": rng.uniform(1e-6, 1, 8).astype(np.float32),
    }
    wide = {name: array.astype(np.longdouble) for name, array in tensors.items()}
    scale = wide["a.norm.weight"] / np.sqrt(wide["a.norm.running_var"] + np.longdouble(1e-5))
    weight = (wide["a.conv.weight"] * scale[:, None, None, None]).astype(np.float32)
    bias = (wide["a.norm.bias"] - wide["a.norm.running_mean"] * scale).astype(np.float32)
    folded = fold_batch_norm(tensors)
    np.testing.assert_array_almost_equal_nulp(folded["a.conv.weight"], weight, nulp=1)
    np.testing.assert_array_almost_equal_nulp(folded["a.conv.bias"], bias, nulp=1)


def test_what_has_no_batch_norm_passes() -> None:
    head = np.ones((2, 4, 1, 1), np.float32)
    assert fold_batch_norm({"class_head.0.weight": head})["class_head.0.weight"] is head


def test_an_incomplete_batch_norm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'a' lacks a.conv.weight, a.norm.bias, a.norm.running_mean"):
        fold_batch_norm({"a.norm.weight": np.ones(1), "a.norm.running_var": np.ones(1)})
