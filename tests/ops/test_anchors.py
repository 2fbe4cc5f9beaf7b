from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_fast import ops
from tests.ops.agreement import P2_P6, P3_P5, Grid, assert_same_bits
from tests.reference import anchors as reference

SIZES_HW = [(1, 1), (1, 97), (97, 1), (8, 8), (9, 8), (31, 33), (32, 32), (33, 31), (480, 640), (217, 333)]


def test_counts_of_the_two_conventions() -> None:
    assert ops.P3_P5.num_anchors((640, 640)) == 16_800
    assert ops.P2_P6.num_anchors((640, 640)) == 102_300
    assert ops.generate_anchors((640, 640)).shape == (16_800, 4)
    assert ops.generate_anchors((640, 640), config=ops.P2_P6).shape == (102_300, 4)


def test_the_two_conventions_are_those_of_the_oracle() -> None:
    assert P3_P5.config == ops.P3_P5
    assert ops.P2_P6.strides == tuple(reference.P2_P6_STRIDES)
    np.testing.assert_allclose(ops.P2_P6.sizes, reference.P2_P6_SIZES, rtol=1e-7)


def test_three_quarters_of_the_papers_anchors_are_on_p2() -> None:
    rows, columns = ops.P2_P6.feature_sizes_hw((640, 640))[0]
    assert rows * columns * ops.P2_P6.anchors_per_cell[0] / 102_300 == pytest.approx(0.75, abs=0.001)


def test_first_cells_by_hand() -> None:
    anchors = ops.generate_anchors((16, 24))
    # P3 has 2 rows of 3 cells with sizes 16 and 32, P4 one row of 2 cells, P5 one cell.
    assert len(anchors) == 12 + 4 + 2
    np.testing.assert_array_equal(
        anchors[:4], [[4, 4, 16, 16], [4, 4, 32, 32], [12, 4, 16, 16], [12, 4, 32, 32]]
    )
    np.testing.assert_array_equal(anchors[6], [4, 12, 16, 16])
    np.testing.assert_array_equal(anchors[12:16, :3], [[8, 8, 64], [8, 8, 128], [24, 8, 64], [24, 8, 128]])
    np.testing.assert_array_equal(anchors[16:], [[16, 16, 256, 256], [16, 16, 512, 512]])


def test_feature_sizes_are_rounded_up() -> None:
    assert list(ops.P3_P5.feature_sizes_hw((31, 33))) == [(4, 5), (2, 3), (1, 2)]
    assert list(ops.P3_P5.feature_sizes_hw((1, 1))) == [(1, 1), (1, 1), (1, 1)]
    assert tuple(ops.P3_P5.anchors_per_cell) == (2, 2, 2)


@pytest.mark.parametrize("grid", [P3_P5, P2_P6], ids=["P3-P5", "P2-P6"])
@pytest.mark.parametrize("image_size_hw", SIZES_HW, ids=str)
def test_agrees_with_the_oracle(image_size_hw: tuple[int, int], grid: Grid) -> None:
    expected = grid.anchors(image_size_hw)
    assert grid.config.num_anchors(image_size_hw) == len(expected)
    # Centres are halves of whole numbers: exact in float32. Sizes are rounded once.
    assert_same_bits(ops.generate_anchors(image_size_hw, config=grid.config), expected.astype(np.float32))


@pytest.mark.parametrize("grid", [P3_P5, P2_P6], ids=["P3-P5", "P2-P6"])
@pytest.mark.parametrize("image_size_hw", [(4320, 7680), (7680, 4320), (1, 7680)], ids=str)
def test_8k_spot_checks(image_size_hw: tuple[int, int], grid: Grid, rng: np.random.Generator) -> None:
    anchors = ops.generate_anchors(image_size_hw, config=grid.config)
    assert len(anchors) == grid.count(image_size_hw)
    edges = np.cumsum([0, *grid.level_counts(image_size_hw)])
    indices = np.concatenate([edges[:-1], edges[1:] - 1, rng.integers(0, len(anchors), 2000)])
    expected = [reference.at(int(index), image_size_hw, grid.strides, grid.sizes) for index in indices]
    assert_same_bits(anchors[indices], np.array(expected, dtype=np.float32))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    levels=st.lists(
        st.tuples(
            st.integers(1, 80), st.lists(st.floats(0.25, 1000, width=32), min_size=1, max_size=4).map(tuple)
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_any_pyramid(height: int, width: int, levels: list[tuple[int, tuple[float, ...]]]) -> None:
    # Whatever the order of the strides: a pyramid need not be one of ours.
    grid = Grid([stride if stride > 3 else 4 for stride, _ in levels], [sizes for _, sizes in levels])
    anchors = ops.generate_anchors((height, width), config=grid.config)
    assert_same_bits(anchors, grid.anchors((height, width)).astype(np.float32))
    feature_sizes = reference.feature_sizes_hw((height, width), grid.strides)
    assert [tuple(size) for size in grid.config.feature_sizes_hw((height, width))] == feature_sizes


def test_the_result_is_a_fresh_writable_array() -> None:
    first, second = ops.generate_anchors((64, 64)), ops.generate_anchors((64, 64))
    first[:] = 0
    assert second.any()
    assert first.flags.c_contiguous


def test_a_config_is_a_value() -> None:
    config = ops.AnchorConfig(strides=(8, 16, 32), sizes=((16, 32), (64, 128), (256, 512)))
    assert config == ops.P3_P5
    assert hash(config) == hash(ops.P3_P5)
    with pytest.raises(AttributeError):
        config.strides = (4,)  # type: ignore[misc]
