"""Width, height, orientation and completeness of an encoded picture, read from its bytes without decoding.

A decoder allocates what a header promises before it has seen one pixel, so a file of a hundred bytes can ask
for gigabytes; and decoders differ, from version to version, in what they return for half a file. Both
questions are answered here, before a decoder is called, by walking the container of each format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the container of a picture says about it.

    Attributes:
        format: Name of the format, such as `"JPEG"`.
        size_hw: Height and width in pixels, as stored: before any orientation is applied.
        orientation: EXIF orientation, 1 to 8; 1 where there is none. TIFF files say 1, because their
            decoder turns the picture itself.
        complete: False when the end of the picture is certainly missing. True proves nothing for the
            formats whose decoder finds out reliably (TIFF, PNM, AVIF, JPEG 2000).
    """

    format: str
    size_hw: tuple[int, int]
    orientation: int = 1
    complete: bool = True


def sniff_format(head: bytes) -> str | None:
    """Name the format of a file by its first bytes.

    Args:
        head: At least the first 32 bytes, or the whole of a shorter file.

    Returns:
        `"JPEG"`, `"PNG"`, `"GIF"`, `"BMP"`, `"WebP"`, `"TIFF"`, `"PNM"`, `"AVIF"`, `"JPEG 2000"`; `"HEIC"` or
        `"JPEG XL"`, which are recognised so that an error can name them; None for anything else.

    Examples:
        >>> sniff_format(bytes.fromhex("ffd8ffe0")), sniff_format(b"hello")
        ('JPEG', None)
    """
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _ISO_BRANDS.get(head[8:12])
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3] in b" \t\r\n#":
        return "PNM"
    return None


def read_header(data: bytes) -> ImageHeader:
    """Read the header of an encoded picture.

    Args:
        data: The whole file.

    Returns:
        The header.

    Raises:
        ValueError: The format is not one of those that can be read, or its header is malformed or cut off.

    Examples:
        >>> read_header(b"P5 640 480 255 ...").size_hw
        (480, 640)
    """
    name = sniff_format(data[:64])
    if name not in _READERS:
        raise ValueError("not a picture in a known format" if name is None else f"{name} is not supported")
    try:
        header = _READERS[name](data)
    except (struct.error, IndexError) as error:
        raise ValueError(f"the {name} header is cut off") from error
    if min(header.size_hw) < 1:
        raise ValueError(f"the {name} header says {header.size_hw[1]}x{header.size_hw[0]} pixels")
    return header


_MAGIC = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
)
_ISO_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"heim": "HEIC",
    b"heis": "HEIC",
    b"mif1": "HEIC",
    b"msf1": "HEIC",
}


def _jpeg(data: bytes) -> ImageHeader:
    # ITU-T T.81, annex B. Segments are walked, not searched: an EXIF block holds a thumbnail, a whole JPEG
    # with a frame header and an end marker of its own.
    size_hw: tuple[int, int] | None = None
    orientation = 1
    seen_exif = False
    position = 2
    while True:
        position = data.find(b"\xff", position)
        if position < 0:
            raise ValueError("the JPEG file ends before its picture begins")
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker in (0, 1) or 0xD0 <= marker <= 0xD8:
            continue
        if marker == 0xD9:
            raise ValueError("the JPEG file holds no picture")
        (length,) = struct.unpack_from(">H", data, position)
        if length < 2:
            raise ValueError("the JPEG file has a malformed segment")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size_hw = struct.unpack_from(">HH", data, position + 3)
        elif marker == 0xE1 and not seen_exif and data[position + 2 : position + 8] == b"Exif\0\0":
            seen_exif = True
            orientation = _exif_orientation(data[position + 8 : position + length])
        elif marker == 0xDA:
            break
        position += length
    if size_hw is None:
        raise ValueError("the JPEG file has no frame header")
    # In entropy-coded data 0xFF is always followed by 0 or a restart marker, so that the first end marker
    # from here on is the true one, whatever follows it (maker's data, a second picture, padding).
    complete = data.endswith(b"\xff\xd9") or data.find(b"\xff\xd9", position + length) >= 0
    return ImageHeader("JPEG", size_hw, orientation, complete)


def _png(data: bytes) -> ImageHeader:
    if data[12:16] != b"IHDR":
        raise ValueError("the PNG file does not begin with its header chunk")
    width, height = struct.unpack_from(">II", data, 16)
    orientation = 1
    complete = False
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        if kind == b"IEND":
            complete = True
            break
        if kind == b"eXIf":
            orientation = _exif_orientation(data[position + 8 : position + 8 + length])
        position += 12 + length
    return ImageHeader("PNG", (height, width), orientation, complete)


def _gif(data: bytes) -> ImageHeader:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    header = ImageHeader("GIF", (height, width))
    position = 13 + (3 << (1 + (flags & 7)) if flags & 0x80 else 0)
    try:
        while data[position] == 0x21:  # extensions in front of the first frame
            position = _skip_gif_blocks(data, position + 2)
        if data[position] == 0x2C:
            local = data[position + 9]
            position += 10 + (3 << (1 + (local & 7)) if local & 0x80 else 0)
            _skip_gif_blocks(data, position + 1)
            return header
    except IndexError:
        pass
    return ImageHeader("GIF", (height, width), complete=False)


def _skip_gif_blocks(data: bytes, position: int) -> int:
    while data[position]:
        position += 1 + data[position]
    return position + 1


def _bmp(data: bytes) -> ImageHeader:
    (pixels_at, header_size) = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # negative: rows from the top down
    row_bytes = (width * bits + 31) // 32 * 4
    complete = compression not in (0, 3) or pixels_at + row_bytes * height <= len(data)
    return ImageHeader("BMP", (height, width), complete=complete)


def _webp(data: bytes) -> ImageHeader:
    (riff_size,) = struct.unpack_from("<I", data, 4)
    complete = riff_size + 8 <= len(data)
    kind = data[12:16]
    orientation = 1
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        if len(data) < 30:
            raise ValueError("the WebP header is cut off")
        position = 12
        while position + 8 <= len(data):
            (length,) = struct.unpack_from("<I", data, position + 4)
            if data[position : position + 4] == b"EXIF":
                exif = data[position + 8 : position + 8 + length]
                orientation = _exif_orientation(exif[6:] if exif.startswith(b"Exif\0\0") else exif)
                break
            position += 8 + length + (length & 1)
    elif kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    else:
        raise ValueError("the WebP file holds no picture")
    return ImageHeader("WebP", (height, width), orientation, complete)


def _tiff(data: bytes) -> ImageHeader:
    values = _tiff_tags(data, (256, 257))
    if 256 not in values or 257 not in values:
        raise ValueError("the TIFF header gives no size")
    return ImageHeader("TIFF", (values[257], values[256]))


def _tiff_tags(data: bytes, wanted: tuple[int, ...]) -> dict[int, int]:
    """Integer tags of the first directory of a TIFF structure; EXIF blocks are one too."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    if big:
        (offset,) = struct.unpack_from(f"{order}Q", data, 8)
        (count,) = struct.unpack_from(f"{order}Q", data, offset)
        start, step, value_at = offset + 8, 20, 12
    else:
        (offset,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, offset)
        start, step, value_at = offset + 2, 12, 8
    codes = {1: "B", 3: "H", 4: "I", 16: "Q"}
    values: dict[int, int] = {}
    seen = set()  # of equal tags libtiff takes the first, whatever its type
    for entry in range(start, start + min(count, 4096) * step, step):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag in seen:
            continue
        seen.add(tag)
        if tag in wanted and kind in codes:
            (values[tag],) = struct.unpack_from(f"{order}{codes[kind]}", data, entry + value_at)
    return values


def _exif_orientation(block: bytes) -> int:
    # A damaged EXIF block is no reason to refuse a picture: it is shown as it is stored.
    if block[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    try:
        orientation = _tiff_tags(block, (274,)).get(274, 1)
    except struct.error:
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def _pnm(data: bytes) -> ImageHeader:
    head = data[:65536]
    lines = (line.split(b"#", 1)[0] for line in head.splitlines())
    tokens = b" ".join(lines).split(maxsplit=16)
    if tokens[0] == b"P7":
        fields = dict(zip(tokens[1::2], tokens[2::2], strict=False))
        width, height = fields.get(b"WIDTH", b""), fields.get(b"HEIGHT", b"")
    else:
        width, height = tokens[1], tokens[2]
    if not (width.isdigit() and height.isdigit()):
        raise ValueError("the PNM header gives no size")
    return ImageHeader("PNM", (int(height), int(width)))


def _jpeg2000(data: bytes) -> ImageHeader:
    if data.startswith(b"\xff\x4f"):
        right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
        return ImageHeader("JPEG 2000", (bottom - top, right - left))
    box = data.find(b"ihdr", 0, 4096)
    if box < 0:
        raise ValueError("the JPEG 2000 file has no header box")
    return ImageHeader("JPEG 2000", struct.unpack_from(">II", data, box + 4))


def _avif(data: bytes) -> ImageHeader:
    # Every item (picture, alpha plane, thumbnail, tile) has an `ispe` box with its size; the picture's is
    # the largest. The boxes lie in `meta`, in front of the coded data.
    sizes: list[tuple[int, int]] = []
    position = data.find(b"ispe", 0, 65536)
    while position >= 0:
        width, height = struct.unpack_from(">II", data, position + 8)
        sizes.append((height, width))
        position = data.find(b"ispe", position + 4, 65536)
    if not sizes:
        raise ValueError("the AVIF file gives no size")
    # OpenCV leaves the picture as it is coded; `irot` turns it counter-clockwise, then `imir` mirrors it
    # (ISO/IEC 23008-12, 6.5.10 and 6.5.12), and an EXIF orientation does not count.
    rotation, mirror = data.find(b"irot", 0, 65536), data.find(b"imir", 0, 65536)
    turns = data[rotation + 4] & 3 if rotation >= 0 else 0
    flip = 1 + (data[mirror + 4] & 1) if mirror >= 0 else 0
    orientation = ((1, 8, 3, 6), (4, 5, 2, 7), (2, 7, 4, 5))[flip][turns]
    return ImageHeader("AVIF", max(sizes, key=lambda size_hw: size_hw[0] * size_hw[1]), orientation)


_READERS: dict[str | None, Callable[[bytes], ImageHeader]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "BMP": _bmp,
    "WebP": _webp,
    "TIFF": _tiff,
    "PNM": _pnm,
    "JPEG 2000": _jpeg2000,
    "AVIF": _avif,
}
