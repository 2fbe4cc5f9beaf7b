"""What files, folders and patterns expand to, and where the annotated versions go."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

typer = pytest.importorskip("typer")

from retinaface_fast.cli._outputs import Inputs, plan, unique  # noqa: E402
from retinaface_fast.cli._sources import Source, expand  # noqa: E402


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "a.jpg",
        "B.JPEG",
        "notes.txt",
        "clip.mp4",
        "sub/c.png",
        "sub/deep/d e.webp",
        "sub/deep/ü.jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(sources: list[Source]) -> list[str]:
    return [source.relative.as_posix() for source in sources]


def test_a_named_file_is_taken_whatever_its_suffix(tree: Path) -> None:
    sources, missing = expand(["notes.txt"])
    assert sources == [Source(Path("notes.txt"), Path("notes.txt"), is_named=True)]
    assert not missing


def test_a_folder_gives_its_pictures_and_videos_in_order(tree: Path) -> None:
    sources, missing = expand([str(tree)])
    assert names(sources) == ["B.JPEG", "a.jpg", "clip.mp4"]
    assert [source.is_video for source in sources] == [False, False, True]
    assert not missing


def test_recursive_keeps_the_structure(tree: Path) -> None:
    sources, _ = expand([str(tree)], recursive=True)
    assert names(sources) == [
        "B.JPEG",
        "a.jpg",
        "clip.mp4",
        "sub/c.png",
        "sub/deep/d e.webp",
        "sub/deep/ü.jpg",
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("sub/*", ["c.png"]),
        ("**/*.jpg", ["a.jpg", "sub/deep/ü.jpg"]),
        ("sub/**/*.[jw]*", ["deep/d e.webp", "deep/ü.jpg"]),
        ("?.jpg", ["a.jpg"]),
    ],
)
def test_patterns(tree: Path, pattern: str, expected: list[str]) -> None:
    sources, missing = expand([pattern])
    assert names(sources) == expected
    assert not missing


def test_an_absolute_pattern(tree: Path) -> None:
    sources, _ = expand([f"{tree}/sub/**/*.jpg"])
    assert names(sources) == ["deep/ü.jpg"]


def test_every_picture_format_is_taken_from_a_folder(tree: Path) -> None:
    files = ["x.avif", "x.bmp", "x.gif", "x.jp2", "x.jpeg", "x.jpg", "x.pgm", "x.png", "x.tiff", "x.webp"]
    for name in files:
        (tree / "empty" / name).write_bytes(b"x")
    sources, _ = expand(["empty"])
    assert names(sources) == files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_folder_gives_no_pipes_but_links_that_lead_nowhere(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "c.jpg").touch()
    sources, _ = expand([str(tmp_path)])
    assert [source.path.name for source in sources] == ["b.jpg", "c.jpg"]
    sources, _ = expand([str(tmp_path / "a.jpg")])
    assert [source.path.name for source in sources] == ["a.jpg"], "named, it is meant"


def test_a_file_whose_name_is_a_pattern_is_a_file(tree: Path) -> None:
    Path("a[1].jpg").write_bytes(b"x")
    Path("a1.jpg").write_bytes(b"x")
    sources, _ = expand(["a[1].jpg"])
    assert names(sources) == ["a[1].jpg"]


def test_each_file_once(tree: Path) -> None:
    sources, _ = expand(["a.jpg", ".", "*.jpg", str(tree / "a.jpg")])
    assert names(sources) == ["a.jpg", "B.JPEG", "clip.mp4"]
    assert sources[0].is_named


def test_what_leads_to_nothing_is_told(tree: Path) -> None:
    sources, missing = expand(["no.jpg", "empty", "*.gif"])
    assert not sources
    assert [(m.argument, m.reason) for m in missing] == [
        ("no.jpg", "no such file or folder"),
        ("empty", "no picture or video in this folder (its subfolders are searched with --recursive)"),
        ("*.gif", "no file matches this pattern"),
    ]
    _, missing = expand(["empty"], recursive=True)
    assert missing[0].reason == "no picture or video in this folder"


def test_the_folders_that_are_written_to_are_not_read(tree: Path) -> None:
    sources, _ = expand([".", "**/*.jpg"], recursive=True, excluded=[Path("sub/deep")])
    assert names(sources) == ["B.JPEG", "a.jpg", "clip.mp4", "sub/c.png"]


def test_a_pattern_below_the_output_is_read(tree: Path) -> None:
    sources, missing = expand(["sub/deep/*"], excluded=[Path("sub"), Path()])
    assert names(sources) == ["d e.webp", "ü.jpg"]
    assert not missing


def planned(arguments: list[str], output: str, *, recursive: bool = False) -> dict[str, str]:
    sources, _ = expand(arguments, recursive=recursive, excluded=[Path(output)])
    targets = plan(sources, Path(output), Inputs(sources))
    return {source.as_posix(): target.as_posix() for source, target in targets.items()}


def test_one_picture_to_one_file(tree: Path) -> None:
    assert planned(["a.jpg"], "faces.png") == {"a.jpg": "faces.png"}


def test_one_picture_to_a_folder_if_that_exists_or_has_no_suffix(tree: Path) -> None:
    assert planned(["a.jpg"], "out") == {"a.jpg": "out/a.jpg"}
    Path("v1.jpg").mkdir()
    assert planned(["a.jpg"], "v1.jpg") == {"a.jpg": "v1.jpg/a.jpg"}


def test_one_picture_found_by_a_folder_goes_to_a_folder(tree: Path) -> None:
    assert planned(["sub"], "faces") == {"sub/c.png": "faces/c.png"}


def test_a_video_to_a_video(tree: Path) -> None:
    assert planned(["clip.mp4"], "faces.avi") == {"clip.mp4": "faces.avi"}
    Path("clip.mkv").write_bytes(b"x")
    assert planned(["clip.mkv"], "out") == {"clip.mkv": "out/clip.mkv.mp4"}


@pytest.mark.parametrize(("source", "output"), [("clip.mp4", "faces.jpg"), ("a.jpg", "faces.mp4")])
def test_a_video_is_no_picture(tree: Path, source: str, output: str) -> None:
    with pytest.raises(typer.BadParameter, match="can be written as"):
        planned([source], output)


def test_many_keep_their_place(tree: Path) -> None:
    assert planned(["."], "out", recursive=True) == {
        "B.JPEG": "out/B.JPEG",
        "a.jpg": "out/a.jpg",
        "clip.mp4": "out/clip.mp4",
        "sub/c.png": "out/sub/c.png",
        "sub/deep/d e.webp": "out/sub/deep/d e.webp",
        "sub/deep/ü.jpg": "out/sub/deep/ü.jpg",
    }


def test_equal_names_do_not_overwrite_each_other(tree: Path) -> None:
    Path("sub/a.jpg").write_bytes(b"x")
    assert list(planned(["a.jpg", "sub/a.jpg"], "out").values()) == ["out/a.jpg", "out/a-2.jpg"]


def test_a_format_that_cannot_be_written_becomes_png(tree: Path) -> None:
    for suffix in ("gif", "avif"):
        Path(f"x.{suffix}").write_bytes(b"x")
    assert list(planned(["x.gif", "x.avif"], "out").values()) == ["out/x.gif.png", "out/x.avif.png"]


@pytest.mark.parametrize(
    ("arguments", "output"),
    [(["a.jpg"], "a.jpg"), (["a.jpg"], "sub/../a.jpg"), (["a.jpg"], "."), (["a.jpg", "B.JPEG"], ".")],
)
def test_an_input_is_never_overwritten(tree: Path, arguments: list[str], output: str) -> None:
    with pytest.raises(typer.BadParameter, match="would overwrite the input"):
        planned(arguments, output)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_an_input_is_recognised_through_links(tree: Path, link: object) -> None:
    assert callable(link)
    link(tree / "a.jpg", tree / "other.jpg")
    with pytest.raises(typer.BadParameter, match="would overwrite the input"):
        planned(["a.jpg"], "other.jpg")


def test_a_file_is_no_folder(tree: Path) -> None:
    with pytest.raises(typer.BadParameter, match="is a file and not a folder"):
        planned(["a.jpg", "B.JPEG"], "notes.txt")


def test_unique_counts_on() -> None:
    taken: set[Path] = set()
    assert [str(unique(Path("x-1.png"), taken)) for _ in range(3)] == ["x-1.png", "x-1-2.png", "x-1-3.png"]
