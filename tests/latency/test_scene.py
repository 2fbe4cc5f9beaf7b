"""The composed crowd: where its faces are, by hand and by detectors that know nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from retinaface_fast import FaceDetector
from retinaface_fast.latency.scene import compose, cover

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("size_hw", [(480, 640), (1080, 1920), (48, 64), (333, 777), (640, 300)])
def test_faces_are_inside_apart_and_where_a_detector_finds_them(size_hw: tuple[int, int]) -> None:
    scene = compose(size_hw)
    assert scene.image.shape == (*size_hw, 3)
    assert scene.image.dtype == np.uint8
    assert scene.image.flags.c_contiguous
    places = scene.places
    assert places is not None
    assert len(places) >= 1
    assert (places[:, :2] >= 0).all()
    assert (places[:, 2] <= size_hw[1]).all()
    assert (places[:, 3] <= size_hw[0]).all()
    first, second = places[:, None], places[None]
    shared = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    apart = (shared <= 0).any(axis=2)
    np.fill_diagonal(apart, val=True)
    assert apart.all()
    found = FaceDetector(close_ups=False).detect(scene.image).boxes
    assert len(found) == len(places)
    centers = (found[:, :2] + found[:, 2:]) / 2
    inside = (centers[None] > places[:, None, :2]) & (centers[None] < places[:, None, 2:])
    assert (inside.all(axis=2).sum(axis=0) == 1).all()


def test_the_same_crowd_each_time() -> None:
    one, other = compose((240, 320)), compose((240, 320))
    assert (one.image == other.image).all()
    assert (one.places == other.places).all()


@pytest.mark.parametrize(("width", "height"), [(100, 40), (40, 100), (50, 50)])
def test_a_picture_of_ones_own_covers_and_is_centred(tmp_path: Path, width: int, height: int) -> None:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[height // 4 : height - height // 4, width // 4 : width - width // 4] = 255
    cv2.imwrite(str(tmp_path / "own.png"), picture)
    scene = cover(tmp_path / "own.png", (60, 80))
    assert scene.image.shape == (60, 80, 3)
    assert scene.places is None
    assert scene.content == "own.png"
    assert (scene.image[30, 40] == 255).all()
    light = scene.image[..., 0] > 127
    assert abs(int(light[:, :40].sum()) - int(light[:, 40:].sum())) <= 60
    assert abs(int(light[:30].sum()) - int(light[30:].sum())) <= 80
