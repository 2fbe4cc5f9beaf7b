from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from retinaface_fast import ImageError
from retinaface_fast._image_header import read_header, sniff_format
from retinaface_fast.geometry import Geometry
from retinaface_fast.image import DEFAULT_MAX_PIXELS, read_image, rescale

FORMATS = {
    "JPEG": {"quality": 90},
    "PNG": {},
    "GIF": {},
    "BMP": {},
    "WEBP": {"quality": 90},
    "TIFF": {},
    "PPM": {},
    "JPEG2000": {},
    "AVIF": {},
}


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **{**FORMATS.get(kind, {}), **options})
    return file.getvalue()


def pil_from_bgr(bgr: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(bgr[:, :, ::-1]))


def with_orientation(image: Image.Image, orientation: int, kind: str) -> bytes:
    if kind == "TIFF":
        return encode(image, kind, tiffinfo={0x112: orientation})
    exif = Image.Exif()
    exif[0x112] = orientation
    return encode(image, kind, exif=exif.tobytes())


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """A small, well-formed PNG file whose header promises this many pixels."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + png_chunk(b"IDAT", zlib.compress(bytes(4096)))
        + png_chunk(b"IEND", b"")
    )


# Sources


def test_every_source_gives_the_same_pixels(astronaut_path: Path, astronaut_bgr: np.ndarray) -> None:
    data = astronaut_path.read_bytes()
    with astronaut_path.open("rb") as file, Image.open(astronaut_path) as pil:
        sources = {
            "str": str(astronaut_path),
            "path": astronaut_path,
            "bytes": data,
            "bytearray": bytearray(data),
            "memoryview": memoryview(data),
            "file": file,
            "BytesIO": io.BytesIO(data),
            "PIL": pil,
            "array": astronaut_bgr,
        }
        for name, source in sources.items():
            loaded = read_image(source)
            assert loaded.color == ("rgb" if name == "PIL" else "bgr"), name
            np.testing.assert_array_equal(loaded.to_color("bgr"), astronaut_bgr, err_msg=name)
            np.testing.assert_array_equal(loaded.to_color("rgb"), astronaut_bgr[:, :, ::-1], err_msg=name)
            assert loaded.geometry == Geometry((512, 512), (512, 512)), name
            assert loaded.decode_seconds >= 0, name


def test_path_with_letters_of_other_alphabets(tmp_path: Path, astronaut_bgr: np.ndarray) -> None:
    path = tmp_path / "Gesicht_ξένος_面.png"
    path.write_bytes(encode(pil_from_bgr(astronaut_bgr), "PNG"))
    np.testing.assert_array_equal(read_image(path).pixels, astronaut_bgr)


def test_file_object_is_read_from_where_it_stands_and_left_open(astronaut_bgr: np.ndarray) -> None:
    file = io.BytesIO(b"preamble" + encode(pil_from_bgr(astronaut_bgr), "PNG"))
    file.seek(8)
    np.testing.assert_array_equal(read_image(file).pixels, astronaut_bgr)
    assert not file.closed


def test_array_is_not_copied(astronaut_bgr: np.ndarray) -> None:
    views = {
        "whole": astronaut_bgr,
        "rows apart": astronaut_bgr[::2],
        "window": astronaut_bgr[5:77, 9:101],
        "one column": astronaut_bgr[:, 7:8],
        "Fortran column": np.asfortranarray(astronaut_bgr[:, 7:8])[:, :, :],
    }
    for name, view in views.items():
        loaded = read_image(view)
        np.testing.assert_array_equal(loaded.pixels, view, err_msg=name)
        assert loaded.color == "bgr"
        if name != "Fortran column":
            assert np.shares_memory(loaded.pixels, astronaut_bgr), name


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::-1],
        lambda a: a[:, ::-1],
        lambda a: a[:, ::3],
        lambda a: a.transpose(1, 0, 2),
        np.asfortranarray,
        lambda a: a[::-1, ::-1, ::-1],
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: np.broadcast_to(a[:, :1], a.shape),
    ],
)
def test_any_strides_give_engine_layout(view, astronaut_bgr: np.ndarray) -> None:
    array = view(astronaut_bgr[:101, :67])
    loaded = read_image(array)
    np.testing.assert_array_equal(loaded.to_color("bgr"), array)
    assert loaded.pixels.strides[1:] == (3, 1)
    assert loaded.pixels.strides[0] >= 3 * loaded.pixels.shape[1]


def test_misaligned_and_read_only_arrays(astronaut_bgr: np.ndarray) -> None:
    raw = np.empty(astronaut_bgr.nbytes + 1, np.uint8)
    misaligned = raw[1:].reshape(astronaut_bgr.shape)
    misaligned[...] = astronaut_bgr
    misaligned.flags.writeable = False
    np.testing.assert_array_equal(read_image(misaligned).pixels, astronaut_bgr)


def test_gray_and_alpha_arrays(astronaut_bgr: np.ndarray) -> None:
    gray = cv2.cvtColor(astronaut_bgr, cv2.COLOR_BGR2GRAY)
    expected = np.stack([gray] * 3, axis=2)
    np.testing.assert_array_equal(read_image(gray).pixels, expected)
    np.testing.assert_array_equal(read_image(gray[:, :, None]).pixels, expected)
    np.testing.assert_array_equal(read_image(gray[::2, ::-3]).pixels, expected[::2, ::-3])
    bgra = np.dstack([astronaut_bgr, np.random.default_rng(0).integers(0, 255, (512, 512), np.uint8)])
    np.testing.assert_array_equal(read_image(bgra).pixels, astronaut_bgr)
    rgba = np.ascontiguousarray(bgra[:, :, [2, 1, 0, 3]])
    np.testing.assert_array_equal(read_image(rgba, color="rgb").to_color("bgr"), astronaut_bgr)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "PA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pil_modes(mode: str, astronaut_bgr: np.ndarray) -> None:
    rgb = pil_from_bgr(astronaut_bgr)
    image = rgb.convert("L").convert(mode) if mode == "LA" else rgb.convert(mode)
    np.testing.assert_array_equal(read_image(image).to_color("rgb"), np.asarray(image.convert("RGB")))


def test_pil_palette_with_transparency_does_not_warn(astronaut_bgr: np.ndarray) -> None:
    palette = pil_from_bgr(astronaut_bgr).convert("P")
    palette.info["transparency"] = bytes(range(256))
    assert read_image(palette).pixels.shape == (512, 512, 3)


def test_pil_16_bit_keeps_the_high_byte() -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    image = Image.fromarray(values)
    np.testing.assert_array_equal(read_image(image).pixels[:, :, 1], (values >> 8).astype(np.uint8))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pil_modes_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(TypeError, match=rf"PIL image of mode '{mode}'"):
        read_image(Image.new(mode, (8, 8)))


def test_pil_image_is_not_changed(astronaut_bgr: np.ndarray) -> None:
    with Image.open(io.BytesIO(with_orientation(pil_from_bgr(astronaut_bgr[:300]), 6, "JPEG"))) as image:
        assert read_image(image).pixels.shape == (512, 300, 3)
        assert image.size == (512, 300)
        assert image.getexif()[0x112] == 6


# Formats


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_formats(kind: str, astronaut_bgr: np.ndarray) -> None:
    image = pil_from_bgr(astronaut_bgr[:301, :403])
    data = encode(image, kind)
    loaded = read_image(data)
    with Image.open(io.BytesIO(data)) as reference:
        expected = np.asarray(reference.convert("RGB")).astype(int)
    assert np.abs(loaded.to_color("rgb") - expected).mean() < 1.0
    assert loaded.geometry.original_size_hw == (301, 403)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"restart_marker_rows": 1}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("PNG", "LA", {}),
        ("PNG", "RGBA", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("BMP", "L", {}),
        ("BMP", "P", {}),
        ("TIFF", "L", {"compression": "tiff_lzw"}),
        ("PPM", "L", {}),
    ],
)
def test_kinds_of_files(kind: str, mode: str, options: dict, astronaut_bgr: np.ndarray) -> None:
    data = encode(pil_from_bgr(astronaut_bgr).convert(mode), kind, **options)
    with Image.open(io.BytesIO(data)) as reference:
        expected = np.asarray(reference.convert("RGB")).astype(int)
    difference = np.abs(read_image(data).to_color("rgb") - expected)
    assert difference.mean() < (1.5 if mode == "CMYK" else 0.5)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_files_are_scaled_to_8_bits(suffix: str, astronaut_bgr: np.ndarray) -> None:
    deep = astronaut_bgr.astype(np.uint16) * 256 + 37
    data = cv2.imencode(suffix, deep)[1].tobytes()
    difference = np.abs(read_image(data).pixels.astype(int) - astronaut_bgr)
    assert difference.max() <= (0 if suffix == ".png" else 1)  # libtiff rounds instead of shifting


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(kind: str, astronaut_bgr: np.ndarray) -> None:
    first = pil_from_bgr(astronaut_bgr)
    others = [Image.new("RGB", (512, 512), color) for color in ("red", "blue")]
    data = encode(first, kind, save_all=True, append_images=others, duration=40)
    difference = np.abs(read_image(data).pixels.astype(int) - astronaut_bgr)
    assert difference.mean() < 4


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation(kind: str, orientation: int, astronaut_bgr: np.ndarray) -> None:
    data = with_orientation(pil_from_bgr(astronaut_bgr[:203, :301]), orientation, kind)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
        from_pil = read_image(image)
    loaded = read_image(data)
    assert loaded.pixels.shape == upright.shape == ((301, 203, 3) if orientation > 4 else (203, 301, 3))
    assert np.abs(loaded.to_color("rgb") - upright).mean() < 1
    np.testing.assert_array_equal(from_pil.to_color("rgb"), upright)
    assert loaded.geometry == Geometry(loaded.pixels.shape[:2], loaded.pixels.shape[:2])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_jpeg_is_the_one_of_opencv(orientation: int, astronaut_bgr: np.ndarray) -> None:
    data = with_orientation(pil_from_bgr(astronaut_bgr[:203, :301]), orientation, "JPEG")
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read_image(data).pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("max_side", "reduction"), [(180, 8), (300, 4), (700, 2), (1400, 1), (1499, 1)])
def test_coordinates_come_back_through_reduction_and_orientation(
    max_side: int, reduction: int, orientation: int
) -> None:
    # Sizes that no reduction divides, so that the surplus of the reduced picture matters.
    height, width = 1003, 1501
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    spots = [(160.0, 120.0), (1340.0, 210.0), (420.0, 860.0)]
    picture = sum(np.exp(-((x[None] - sx) ** 2 + (y[:, None] - sy) ** 2) / (2 * 30**2)) for sx, sy in spots)
    image = Image.fromarray((picture * 250).round().astype(np.uint8))
    data = with_orientation(image, orientation, "JPEG")
    loaded = read_image(data, max_side=max_side)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert loaded.geometry.original_size_hw == upright.size[::-1]
    assert max(loaded.pixels.shape) == max_side == max(loaded.geometry.size_hw)
    truth = centroids(np.asarray(upright))
    found = loaded.geometry.points_to_original(centroids(loaded.pixels[:, :, 0]))
    assert np.abs(found - truth).max() < 0.2, reduction


def centroids(gray: np.ndarray) -> np.ndarray:
    """Centres of the bright spots of a picture, in continuous coordinates, from left to right."""
    weights = gray.astype(float)
    points = []
    count, labels = cv2.connectedComponents((gray > 40).astype(np.uint8))
    for label in range(1, count):
        ys, xs = np.nonzero(labels == label)
        w = weights[ys, xs]
        points.append(((xs + 0.5) @ w / w.sum(), (ys + 0.5) @ w / w.sum()))
    return np.float32(sorted(points))


def test_damaged_exif_leaves_the_picture_as_stored(astronaut_bgr: np.ndarray) -> None:
    data = bytearray(with_orientation(pil_from_bgr(astronaut_bgr), 6, "JPEG"))
    start = data.index(b"Exif\0\0") + 6
    for damage in (b"XX", struct.pack(">I", 0)):
        broken = bytearray(data)
        broken[start : start + len(damage)] = damage
        assert read_image(bytes(broken)).pixels.shape == (512, 512, 3)
    tag = data.index(struct.pack(">HH", 0x112, 3), start)
    data[tag + 8 : tag + 10] = struct.pack(">H", 9)
    assert read_header(bytes(data)).orientation == 1


# Resizing


def test_max_side_never_enlarges(astronaut_bgr: np.ndarray) -> None:
    loaded = read_image(astronaut_bgr, max_side=512)
    assert loaded.pixels is not None
    assert np.shares_memory(loaded.pixels, astronaut_bgr)
    assert loaded.geometry.is_identity


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 100))
@settings(deadline=None, max_examples=60)
def test_max_side_fits_and_geometry_spans_both_pictures(height: int, width: int, max_side: int) -> None:
    loaded = read_image(np.zeros((height, width, 3), np.uint8), max_side=max_side)
    h, w = loaded.pixels.shape[:2]
    assert max(h, w) == min(max(height, width), max_side)
    assert min(h, w) >= 1
    geometry = loaded.geometry
    assert (geometry.original_size_hw, geometry.size_hw) == ((height, width), (h, w))
    corners = np.float32([[0, 0, w, h]])
    np.testing.assert_allclose(geometry.boxes_to_original(corners), [[0, 0, width, height]], rtol=1e-6)


def test_large_jpeg_is_decoded_at_reduced_scale(
    monkeypatch: pytest.MonkeyPatch, astronaut_bgr: np.ndarray
) -> None:
    data = encode(pil_from_bgr(cv2.resize(astronaut_bgr, (2051, 1537))))
    flags = []
    imdecode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda buffer, flag: flags.append(flag) or imdecode(buffer, flag))
    for max_side in (2051, 1026, 1025, 513, 512, 256, 10):
        assert max(read_image(data, max_side=max_side).pixels.shape) == max_side
    no_turn = cv2.IMREAD_IGNORE_ORIENTATION
    expected = [cv2.IMREAD_COLOR, cv2.IMREAD_COLOR, cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_COLOR_2]
    expected += [cv2.IMREAD_REDUCED_COLOR_4] + [cv2.IMREAD_REDUCED_COLOR_8] * 2
    assert flags == [flag | no_turn for flag in expected]


def test_reduced_decoding_looks_like_resizing(astronaut_bgr: np.ndarray) -> None:
    large = cv2.resize(astronaut_bgr, (2048, 2048), interpolation=cv2.INTER_CUBIC)
    data = encode(pil_from_bgr(large), quality=95)
    expected = read_image(large, max_side=400).pixels.astype(int)
    assert np.abs(read_image(data, max_side=400).pixels - expected).mean() < 2


# Errors


def test_missing_file_directory_and_empty_file_name_the_path(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.jpg': no such file"):
        read_image(tmp_path / "nowhere.jpg")
    with pytest.raises(ImageError, match=r"is a directory"):
        read_image(tmp_path)
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(ImageError, match=r"empty\.png: the file is empty"):
        read_image(empty)
    with pytest.raises(ImageError, match="0 bytes"):
        read_image(b"")
    with pytest.raises(ImageError, match="is not a path"):
        read_image("a\0b")
    with pytest.raises(ImageError, match="addresses are not fetched"):
        read_image("https://example.org/face.jpg")


def test_lack_of_permission_names_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The superuser may read everything, so the refusal of the system is played.
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"secret\.jpg'.*Permission denied"):
        read_image(tmp_path / "secret.jpg")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_device_without_an_end_is_refused_at_once() -> None:
    with pytest.raises(ImageError, match="not a picture"):
        read_image("/dev/zero")


def test_endless_stream_that_begins_like_a_picture_is_refused() -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1) -> bytes:
            self.taken += size
            return b"\xff\xd8\xff\xe0".ljust(size, b"\0")

    stream = Endless()
    with pytest.raises(ImageError, match="longer than"):
        read_image(stream, max_pixels=1000)
    assert stream.taken <= 2**26 + 64


def test_small_file_is_read_into_little_memory(tmp_path: Path, astronaut_bgr: np.ndarray) -> None:
    # A buffered reader allocates all that `read` is asked for, however short the file is.
    path = tmp_path / "small.png"
    path.write_bytes(encode(pil_from_bgr(astronaut_bgr[:50, :50]), "PNG"))
    read_image(path)  # what is imported on the first call does not count
    tracemalloc.start()
    try:
        read_image(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


class Trickle(io.RawIOBase):
    """A raw file, such as a pipe, that gives less than it is asked for."""

    def __init__(self, data: bytes, most: int) -> None:
        self.file, self.most = io.BytesIO(data), most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        part = self.file.read(min(len(buffer), self.most))
        buffer[: len(part)] = part
        return len(part)


@pytest.mark.parametrize("most", [10, 1000])
def test_short_reads_are_not_the_end(most: int, astronaut_bgr: np.ndarray) -> None:
    data = encode(pil_from_bgr(astronaut_bgr[:80, :90]), "PNG")
    np.testing.assert_array_equal(read_image(Trickle(data, most)).pixels, astronaut_bgr[:80, :90])


def test_file_that_is_not_ready_is_told_from_its_end() -> None:
    class NotReady(io.RawIOBase):
        def read(self, size: int = -1) -> None:
            return None

    with pytest.raises(TypeError, match="read gave NoneType instead of bytes"):
        read_image(NotReady())


def test_text_is_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "note.jpg"
    path.write_text("This is no picture, whatever its name says.")
    with pytest.raises(ImageError, match=r"note\.jpg: not a picture"):
        read_image(path)
    with path.open() as file, pytest.raises(TypeError, match='mode "rb"'):
        read_image(file)


@pytest.mark.parametrize("head", [b"\0\0\0\x18ftypheic" + bytes(80), b"\xff\x0a" + bytes(80)])
def test_formats_that_opencv_lacks_are_named(head: bytes) -> None:
    with pytest.raises(ImageError, match=r"(HEIC|JPEG XL) is not supported: open it with PIL"):
        read_image(head)


@pytest.mark.parametrize("kind", sorted(FORMATS))
@pytest.mark.parametrize("part", [0.02, 0.2, 0.5, 0.8, 0.95, 0.99])
def test_truncated_files_are_refused(kind: str, part: float, astronaut_bgr: np.ndarray) -> None:
    data = encode(pil_from_bgr(astronaut_bgr), kind)
    with pytest.raises(ImageError):
        read_image(data[: int(len(data) * part)])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_truncated_jpeg_is_refused_before_decoding(
    options: dict, astronaut_bgr: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Versions of OpenCV differ: some return a picture whose missing part is grey.
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("a truncated file was decoded"))
    image = pil_from_bgr(astronaut_bgr)
    thumbnail = encode(image.resize((64, 64)))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail  # an end marker that is not the end
    data = encode(image, exif=exif, **options)
    assert data.index(b"\xff\xd9") < len(data) - 2
    for length in (len(data) - 2, len(data) - 1, len(data) * 3 // 4, len(data) // 2):
        with pytest.raises(ImageError, match="truncated"):
            read_image(data[:length])
        with pytest.raises(ImageError, match="truncated"):
            read_image(data[:length].ljust(len(data) + 512, b"\0"))  # space reserved by a download


def test_jpeg_with_bytes_behind_its_end_is_read(astronaut_bgr: np.ndarray) -> None:
    data = encode(pil_from_bgr(astronaut_bgr))
    expected = read_image(data).pixels
    for trailer in (b"\0", b"\r\n", bytes(1000), b"maker's data \xff\xd9", data[: len(data) // 2]):
        np.testing.assert_array_equal(read_image(data + trailer).pixels, expected)


def test_damaged_content_is_an_image_error(astronaut_bgr: np.ndarray) -> None:
    data = bytearray(encode(pil_from_bgr(astronaut_bgr), "PNG"))
    data[200:400] = bytes(200)
    with pytest.raises(ImageError, match="cannot decode this PNG"):
        read_image(bytes(data))


def test_truncated_pil_image_is_an_image_error(astronaut_bgr: np.ndarray) -> None:
    data = encode(pil_from_bgr(astronaut_bgr))
    with (
        Image.open(io.BytesIO(data[: len(data) // 2])) as image,
        pytest.raises(ImageError, match="PIL image: cannot be decoded"),
    ):
        read_image(image)


@pytest.mark.parametrize(
    "data",
    [
        png_of_size(60_000, 60_000),
        b"BM" + struct.pack("<IIIIiiHHI", 0, 0, 54, 40, 60_000, -60_000, 1, 24, 0) + bytes(100),
        b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0) + bytes(100),
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + (b"\x5f\xea\0" * 2),
        b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, 60_000, 60_000, 3) + bytes(9) + b"\xff\xda\0\x08"
        b"\1\1\0\0\x3f\0\xff\xd9",
        b"II*\0\x08\0\0\0\2\0" + struct.pack("<HHIIHHII", 256, 4, 1, 60_000, 257, 4, 1, 60_000),
        b"P6 60000 60000 255\n",
        b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 41, 0, 60_000, 60_000, 0, 0),
        b"\0\0\0\x1cftypavif" + bytes(40) + b"\0\0\0\x14ispe" + struct.pack(">III", 0, 60_000, 60_000),
    ],
    ids=["png", "bmp", "gif", "webp", "jpeg", "tiff", "pnm", "jp2", "avif"],
)
def test_bomb_is_refused_before_decoding(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("a bomb was decoded"))
    with pytest.raises(ImageError, match=r"60000x60000 pixels are more than the limit of 268,435,456"):
        read_image(data)


def test_bomb_behind_a_repeated_tag_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("a bomb was decoded"))
    tags = [(256, 60_000), (256, 8), (257, 60_000), (257, 8)]  # of equal tags libtiff takes the first
    data = b"II*\0\x08\0\0\0\4\0" + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    with pytest.raises(ImageError, match="60000x60000 pixels are more than the limit"):
        read_image(data)
    # Also where it is of a type that is not read here.
    with pytest.raises(ImageError, match="gives no size"):
        read_image(data.replace(struct.pack("<HHI", 256, 4, 1), struct.pack("<HHI", 256, 9, 1), 1))


def test_more_pixels_than_the_header_says_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.new("RGB", (8, 8)), "PNG")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((9, 8, 3), np.uint8))
    with pytest.raises(ImageError, match="8x9 pixels are more than the limit of 64"):
        read_image(data, max_pixels=64)


def test_bomb_takes_no_memory() -> None:
    resource = pytest.importorskip("resource", reason="peak memory is read with a POSIX call")
    del resource
    code = """
import resource, sys
import cv2
from retinaface_fast import ImageError
from retinaface_fast.image import read_image
read_image(cv2.imencode(".png", cv2.UMat(64, 64, cv2.CV_8UC3).get())[1].tobytes())
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_image(data)
except ImageError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], input=png_of_size(60_000, 60_000), capture_output=True, check=True
    )
    kilobytes = int(run.stdout) / (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 4096


def test_limit_of_opencv_becomes_an_image_error() -> None:
    with pytest.raises(ImageError, match="OpenCV cannot decode this PNG"):
        read_image(png_of_size(60_000, 60_000), max_pixels=2**40)


def test_pixel_limit_by_argument_and_environment(
    monkeypatch: pytest.MonkeyPatch, astronaut_bgr: np.ndarray
) -> None:
    image = pil_from_bgr(astronaut_bgr)
    data = encode(image)
    read_image(data, max_pixels=512 * 512)
    for source in (data, image):
        with pytest.raises(ImageError, match="limit of 262,143"):
            read_image(source, max_pixels=512 * 512 - 1)
    read_image(astronaut_bgr, max_pixels=1)  # an array is in memory already
    monkeypatch.setenv("RETINAFACE_FAST_MAX_PIXELS", "1000")
    with pytest.raises(ImageError, match="limit of 1,000"):
        read_image(data)
    read_image(data, max_pixels=DEFAULT_MAX_PIXELS)
    monkeypatch.setenv("RETINAFACE_FAST_MAX_PIXELS", "lots")
    with pytest.raises(ValueError, match="RETINAFACE_FAST_MAX_PIXELS must be a positive whole number"):
        read_image(data)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, r"got float32; convert with np\.clip\(image \* 255"),
        (np.full((4, 4, 3), 200.0), TypeError, r"got float64; convert with np\.clip\(image, 0, 255\)"),
        (np.full((4, 4, 3), np.nan), TypeError, "got float64; convert"),
        (np.zeros((0, 4, 3), np.float32), TypeError, "got float32"),
        (np.zeros((4, 4), bool), TypeError, r"astype\(np\.uint8\) \* 255"),
        (np.zeros((4, 4), np.uint16), TypeError, r"image >> 8"),
        (np.zeros((4, 4), np.int64), TypeError, r"image\.astype"),
        (np.array([[None]]), TypeError, "got object"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "image is empty"),
        (np.zeros((4, 0), np.uint8), ValueError, "image is empty"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"got \(4, 4, 2\)"),
        (np.zeros((3, 40, 50), np.uint8), ValueError, r"channels come last"),
        (np.zeros((1, 4, 4, 3), np.uint8), ValueError, "detect_batch"),
        (np.zeros(10, np.uint8), ValueError, "tobytes"),
        (np.zeros((), np.uint8), ValueError, r"got \(\)"),
    ],
)
def test_wrong_arrays(array: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        read_image(array)
    assert str(caught.value).startswith("image ")


@pytest.mark.parametrize("source", [None, 7, 1.5, [[0, 0, 0]], object(), {"path": "x"}])
def test_wrong_sources(source: object) -> None:
    with pytest.raises(TypeError, match="image must be a path, bytes"):
        read_image(source)


def test_none_hints_at_imread() -> None:
    with pytest.raises(TypeError, match=r"cv2\.imread returns None"):
        read_image(None)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"color": "gbr"}, ValueError),
        ({"color": None}, ValueError),
        ({"color": np.zeros(3)}, ValueError),
        ({"max_side": 0}, ValueError),
        ({"max_side": -1}, ValueError),
        ({"max_side": 640.0}, TypeError),
        ({"max_side": True}, TypeError),
        ({"max_side": "640"}, TypeError),
        ({"max_pixels": 0}, ValueError),
        ({"max_pixels": 1.5}, TypeError),
    ],
)
def test_wrong_options_are_named(options: dict, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{next(iter(options))} must be"):
        read_image(np.zeros((4, 4, 3), np.uint8), **options)


# Headers


@given(st.sampled_from(sorted(FORMATS)), st.integers(1, 200), st.integers(1, 200))
@settings(deadline=None, max_examples=80)
def test_header_agrees_with_pil(kind: str, width: int, height: int) -> None:
    header = read_header(encode(Image.new("RGB", (width, height), "teal"), kind))
    assert header.size_hw == (height, width)
    assert header.complete
    assert header.orientation == 1


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"save_all": True, "append_images": []}, {"exact": True}]
)
def test_header_of_webp_kinds(options: dict) -> None:
    for mode in ("RGB", "RGBA"):
        data = encode(Image.new(mode, (123, 45)), "WEBP", **options)
        assert read_header(data).size_hw == (45, 123)


def test_header_of_big_tiff_and_pnm_with_comments() -> None:
    data = encode(Image.new("RGB", (12, 34)), "TIFF", big_tiff=True)
    assert data[:4] == b"II+\0"
    assert read_header(data).size_hw == (34, 12)
    assert read_header(b"P5\n# a comment 9 9\n640 # another\n480 255\n").size_hw == (480, 640)
    pam = b"P7\nWIDTH 7\nHEIGHT 5\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"
    assert read_header(pam).size_hw == (5, 7)


def test_formats_are_told_apart() -> None:
    assert [sniff_format(encode(Image.new("RGB", (8, 8)), kind)[:64]) for kind in sorted(FORMATS)] == [
        "AVIF",
        "BMP",
        "GIF",
        "JPEG",
        "JPEG 2000",
        "PNG",
        "PNM",
        "TIFF",
        "WebP",
    ]


@given(st.sampled_from(sorted(FORMATS)), st.data())
@settings(deadline=None, max_examples=300)
def test_damaged_headers_raise_nothing_else(kind: str, data: st.DataObject) -> None:
    content = bytearray(encode(Image.new("RGB", (9, 7), "teal"), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    with contextlib.suppress(ValueError):
        read_header(bytes(content))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pipe in the file system")
def test_named_pipe(tmp_path: Path, astronaut_bgr: np.ndarray) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=[encode(pil_from_bgr(astronaut_bgr), "PNG")])
    writer.start()
    np.testing.assert_array_equal(read_image(path).pixels, astronaut_bgr)
    writer.join()


# Scaling


@pytest.mark.parametrize("scale", [2.1, 1.0, 0.7, 0.4, 0.2, 0.11])
def test_scaled_pictures_say_where_their_pixels_lie(scale: float) -> None:
    """A bright square is at its place, to a fraction of a pixel of the smaller picture."""
    picture = np.zeros((413, 611, 3), np.uint8)
    picture[100:300, 220:450] = 200
    scaled, scale_xy = rescale(picture, scale)
    assert scaled.shape == (round(413 * scale), round(611 * scale), 3)
    weights = scaled[:, :, 0].astype(float)
    y, x = np.mgrid[: scaled.shape[0], : scaled.shape[1]] + 0.5
    centre = [
        (x * weights).sum() / weights.sum() * scale_xy[0],
        (y * weights).sum() / weights.sum() * scale_xy[1],
    ]
    np.testing.assert_allclose(centre, [335, 200], atol=0.15 / min(scale, 1))
    assert weights.sum() * scale_xy[0] * scale_xy[1] == pytest.approx(200 * 200 * 230, rel=0.01)


@pytest.mark.parametrize("size_hw", [(1, 5000), (5000, 1), (1, 1)])
def test_no_side_vanishes(size_hw: tuple[int, int]) -> None:
    scaled, scale_xy = rescale(np.full((*size_hw, 3), 7, np.uint8), 0.4)
    assert min(scaled.shape[:2]) >= 1
    assert scaled.max() == scaled.min() == 7
    assert scale_xy[0] * scaled.shape[1] == pytest.approx(size_hw[1])
