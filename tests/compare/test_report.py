"""The report as a browser reads it: nothing from outside, nothing unescaped, every figure in its place."""

from __future__ import annotations

import base64
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from retinaface_fast import ImageError
from retinaface_fast.compare import Contestant, compare_picture, render_report, summarize_comparison
from retinaface_fast.compare import panels as panels_module
from retinaface_fast.compare.panels import (
    FOUND_BY_OTHERS,
    draw_panels,
    encode_jpeg,
    own_color,
    panel_side,
    side_by_side,
)
from retinaface_fast.compare.plots import curve_plot, height_plot
from retinaface_fast.data import GroundTruth
from tests.compare.made_up import Finder, contestants

pytest.importorskip("jinja2")

HOSTILE = '"><script>alert(1)</script>&lt;img src=x onerror=alert(2)>{{ 7*7 }}.jpg'
ONE, TWO = [[10, 10, 40, 50]], [[12, 14, 42, 50], [100, 20, 130, 60]]
GRAY = np.full((100, 200, 3), 128, np.uint8)
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, the text of each, and whether all of them are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def row(self, heading: str) -> list[str]:
        """Cells of the first row with this heading."""
        return next([cell.strip() for cell in row[1:]] for row in self.rows if row[0].strip() == heading)


def report(
    *finders: Finder, pictures: dict[str, Any] | None = None, truth: bool = False, show: bool = True
) -> tuple[Page, str, dict[str, Any]]:
    them = contestants(*finders)
    done, images = [], {}
    given = pictures if pictures is not None else {"e/a": GRAY, "e/b": GRAY}
    for index, (name, image) in enumerate(given.items()):
        compared, pixels = compare_picture(name, image, them, scored=truth)
        done.append(compared)
        if pixels is not None and show:
            images[index] = {
                each: encode_jpeg(panel)
                for each, panel in draw_panels(pixels, compared, max_side=panel_side(6)).items()
            }
    summary = summarize_comparison(
        them, done, min_iou=0.3, truth=_truth if truth else None, protocol="original"
    )
    text = render_report(summary, images)
    return Page(text), text, summary


def _truth(names: list[str]) -> GroundTruth:
    faces = np.array([ONE[0], TWO[1]] * len(names), np.float64)
    offsets = np.arange(len(names) + 1, dtype=np.int64) * 2
    easy = np.array([True, False] * len(names))
    return GroundTruth(names, faces, offsets, {"easy": easy, "hard": np.ones(len(faces), np.bool_)})


def check_self_contained(page: Page, text: str) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"script", "iframe", "object", "embed", "form", "base", "audio", "video"}
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} has a handler"
            if name in {"src", "href", "srcset", "action", "poster", "data", "xlink:href"}:
                assert value is not None
                assert value.startswith(("data:", "#")), f"{tag} {name}={value[:60]}"
            if name == "style":
                assert "url(" not in (value or "")
    style = "".join(page.texts["style"])
    assert "url(" not in style
    assert "@import" not in style
    assert re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", text)) is None
    [policy] = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def check_accessible(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)
        if (attributes.get("href") or "").startswith("#"):
            assert attributes["href"][1:] in ids
    assert all(image.get("alt") for image in page.all("img"))
    for svg in page.all("svg"):
        assert svg.get("aria-hidden") == "true" or (svg["role"] == "img" and svg["aria-labelledby"])
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    [viewport] = [a["content"] for a in page.all("meta") if a.get("name") == "viewport"]
    assert viewport == "width=device-width, initial-scale=1"


@pytest.mark.parametrize(
    ("finders", "options"),
    [
        ((Finder(ONE), Finder(TWO), Finder([])), {"truth": True}),
        ((Finder(ONE), Finder(TWO)), {}),
        ((Finder(ONE),), {}),
        ((Finder(), Finder()), {}),
        ((Finder(), Finder()), {"truth": True}),
        ((Finder(ONE), Finder(TWO)), {"pictures": {}}),
        ((Finder(ONE), Finder(TWO)), {"pictures": {"e/a": b"broken"}}),
        ((Finder(ONE), Finder(TWO)), {"pictures": {"e/dot": np.zeros((1, 1, 3), np.uint8)}}),
        ((Finder(ONE), Finder(TWO)), {"show": False}),
    ],
    ids=["three", "two", "one", "none", "none-truth", "empty", "broken", "1x1", "hidden"],
)
def test_every_report_is_whole(finders: tuple[Finder, ...], options: dict[str, Any]) -> None:
    page, text, _ = report(*finders, **options)
    check_self_contained(page, text)
    check_accessible(page)
    for name in ("summary", "heights", "pictures", "method"):
        assert any(attributes.get("id") == name for attributes in page.all("section"))


def test_figures_are_where_they_belong() -> None:
    page, _, summary = report(Finder(ONE), Finder(TWO), Finder([]), truth=True)
    assert page.texts["h1"] == ["RetinaFace, dlib HOG and dlib CNN on 2 pictures"]
    assert page.row("Faces") == ["2", "4", "0"]
    assert page.row("Matched with RetinaFace") == ["–", "2", "0"]  # noqa: RUF001
    assert page.row("Missed: found by RetinaFace only") == ["–", "0", "2"]  # noqa: RUF001
    assert page.row("Extra: not found by RetinaFace") == ["–", "2", "0"]  # noqa: RUF001
    for subset in ("easy", "hard"):
        expected = [
            f"{100 * summary['ground_truth']['ap'][name][subset]:.1f}"
            for name in ("retinaface", "dlib-hog", "dlib-cnn")
        ]
        assert page.row(f"Average precision, {subset}, %") == expected
    distance = summary["pairs"]["dlib-hog"]["landmarks"]["nose"]["median_distance"]
    assert page.row("Nose") == [f"{100 * distance:.1f} (2)", "–"]  # noqa: RUF001
    assert len(page.all("article")) == 2
    assert len(page.all("img")) == 6
    assert page.all("img")[1]["alt"] == "e/a with 2 faces found by dlib HOG, 1 of them by RetinaFace, too"
    assert [line["class"] for line in page.all("polyline")] == ["line s0", "line s1", "line s2"] * 2
    sections = {attributes.get("id") for attributes in page.all("section")}
    assert sections == {"summary", "truth", "heights", "landmarks", "pictures", "method"}


def test_embedded_pictures_are_pictures() -> None:
    page, _, _ = report(Finder(ONE), Finder(TWO))
    for image in page.all("img"):
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert decoded.shape == (100, 200, 3)


def test_each_picture_is_its_own_whatever_its_name() -> None:
    them = contestants(Finder(ONE))
    shades = (30, 220)
    done, images = [], {}
    for index, shade in enumerate(shades):
        compared, pixels = compare_picture("same", np.full((100, 200, 3), shade, np.uint8), them)
        done.append(compared)
        images[index] = {name: encode_jpeg(panel) for name, panel in draw_panels(pixels, compared).items()}
    page = Page(render_report(summarize_comparison(them, done, min_iou=0.3), images))
    for image, shade in zip(page.all("img"), shades, strict=True):
        data = base64.b64decode((image["src"] or "").partition(",")[2])
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert np.median(decoded) == pytest.approx(shade, abs=3)


def test_hostile_names_are_text() -> None:
    page, text, _ = report(Finder(ONE), Finder(TWO), pictures={HOSTILE: GRAY, f"broken {HOSTILE}": b""})
    check_self_contained(page, text)
    assert "<script" not in text.lower()
    assert any(heading.startswith(HOSTILE) for heading in page.texts["h3"])
    assert page.all("img")[0]["alt"].startswith(HOSTILE)
    assert len(page.all("img")) == 2
    assert any(row[0] == f"broken {HOSTILE}" for row in page.rows)


def test_names_that_are_no_text() -> None:
    _, text, _ = report(Finder(ONE), pictures={"caf\udce9.jpg": GRAY})
    assert "caf\\udce9.jpg" in text
    text.encode("utf-8")


def test_failures_are_listed() -> None:
    def refuse(image: np.ndarray) -> None:
        raise ImageError("far too <large>")

    page, text, _ = report(Finder(ONE), Finder(before=refuse), pictures={"a": GRAY, "b": b"broken"})
    check_self_contained(page, text)
    check_accessible(page)
    assert ["a", "dlib HOG", "far too <large>"] in page.rows
    assert [row[:2] for row in page.rows if row[0] == "b"] == [["b", "not read"]]
    assert page.row("Pictures not searched") == ["1", "2"]
    assert "far too <large>" in page.texts["p"]
    assert len(page.all("img")) == 1


def test_a_scorer_that_fails_is_listed() -> None:
    def refuse(image: np.ndarray) -> None:
        raise ImageError("too large")

    them = contestants(Finder(ONE), Finder(TWO), scorers={1: Finder(before=refuse)})
    compared, pixels = compare_picture("a", GRAY, them, scored=True)
    images = {0: {name: encode_jpeg(panel) for name, panel in draw_panels(pixels, compared).items()}}
    page = Page(render_report(summarize_comparison(them, [compared], min_iou=0.3), images))
    assert ["a", "dlib HOG, for average precision", "too large"] in page.rows
    assert len(page.all("img")) == 2


def test_what_is_true_of_dlib_is_only_said_of_dlib() -> None:
    _, text, _ = report(Finder(ONE), Finder(TWO))
    assert "boxes are squares" in text
    them = [Contestant("one", "One", Finder(ONE)), Contestant("two", "Two", Finder(TWO))]
    compared, _ = compare_picture("a", GRAY, them)
    text = render_report(summarize_comparison(them, [compared], min_iou=0.3), {})
    assert "dlib" not in text


def test_threads_stand_beside_the_time() -> None:
    them = [
        Contestant("a", "A", Finder(ONE), settings={"threads": 4}),
        Contestant("b", "B", Finder(ONE), settings={"threads": 1}),
        Contestant("c", "C", Finder(ONE), settings={"threads": None}),
    ]
    compared, _ = compare_picture("a", GRAY, them)
    page = Page(render_report(summarize_comparison(them, [compared], min_iou=0.3), {}))
    cells = page.row("Median time for a picture, ms")
    assert re.fullmatch(r"[\d.,]+ \(4 threads\)", cells[0])
    assert re.fullmatch(r"[\d.,]+ \(1 thread\)", cells[1])
    assert re.fullmatch(r"[\d.,]+", cells[2])


def test_a_detector_that_searched_nothing_did_not_find_nothing() -> None:
    def refuse(image: np.ndarray) -> None:
        raise ImageError("too large")

    page, _, _ = report(Finder(ONE), Finder(before=refuse))
    for heading, first in {
        "Faces": "2",
        "Matched with RetinaFace": "–",  # noqa: RUF001
        "Missed: found by RetinaFace only": "–",  # noqa: RUF001
        "Extra: not found by RetinaFace": "–",  # noqa: RUF001
    }.items():
        assert page.row(heading) == [first, "–"]  # noqa: RUF001
    bins = [row[1:] for row in page.rows if " to " in row[0]]
    assert bins
    assert all(row[1] == "–" for row in bins)  # noqa: RUF001


def test_pictures_that_are_not_shown_are_counted() -> None:
    page, _, _ = report(Finder(ONE), Finder(TWO), show=False)
    assert not page.all("article")
    assert any("0 pictures of 2 are shown" in text for text in page.texts["p"])
    assert page.row("Faces") == ["2", "4"]


def test_bars_stand_for_the_counts() -> None:
    rng = np.random.default_rng(1)
    boxes = [[0, 0, 9, height] for height in rng.uniform(5, 300, 50)]
    page, _, summary = report(Finder(boxes), Finder(boxes[:7]), pictures={"a": GRAY})
    plot = height_plot(summary)
    counts = list(summary["heights"]["counts"].values())
    drawn = {(bar["series"], bar["bin"]): bar for bar in plot["bars"]}
    wanted = {
        (series, index): count
        for series, each in enumerate(counts)
        for index, count in enumerate(each)
        if count
    }
    assert {key: bar["count"] for key, bar in drawn.items()} == wanted
    top = next(tick["at"] for tick in plot["y_ticks"] if int(tick["text"]) == max(map(max, counts)) // 5 * 5)
    value = max(map(max, counts)) // 5 * 5
    for bar in plot["bars"]:
        tall = bar["count"] / value * (plot["bottom"] - top)
        assert bar["height"] == pytest.approx(max(2, tall), abs=0.02)
        assert bar["y"] + bar["height"] == pytest.approx(plot["bottom"], abs=0.02)
        assert plot["left"] <= bar["x"] <= bar["x"] + bar["width"] <= plot["right"]
    for one, other in zip(plot["bars"], plot["bars"][1:], strict=False):
        if one["series"] == other["series"]:
            assert one["x"] + one["width"] <= other["x"] + 0.01
    assert len([a for a in page.all("rect") if a["class"].startswith("bar")]) == len(plot["bars"])
    for index, (low, high) in enumerate(
        zip(summary["heights"]["edges"], summary["heights"]["edges"][1:], strict=False)
    ):
        assert page.row(f"{low:.1f} to {high:.1f}") == [str(each[index]) for each in counts]


@pytest.mark.parametrize("most", [1, 2, 3, 7, 10, 60, 61, 999, 12345])
def test_ticks_of_any_count(most: int) -> None:
    summary = {"heights": {"edges": [8.0, 11.3], "counts": {"a": [most]}}}
    ticks = [int(tick["text"].replace(",", "")) for tick in height_plot(summary)["y_ticks"]]
    assert ticks[0] == 0
    assert ticks[-1] >= most > ticks[-2]
    assert 2 <= len(ticks) <= 8
    assert all(float(str(ticks[1])[0]) in (1, 2, 5) for _ in ticks)


def test_curves_go_through_their_points() -> None:
    curve = {"recall": [0.0, 0.25, 0.25, 0.5], "precision": [0.0, 1.0, 1.0, 0.5]}
    plot = curve_plot({"a": {"easy": curve}}, "easy")
    left, right, top, bottom = (plot[key] for key in ("left", "right", "top", "bottom"))
    [line] = plot["lines"]
    points = [tuple(map(float, point.split(","))) for point in line["points"].split()]
    assert points == [
        pytest.approx((left + 0.25 * (right - left), top), abs=0.06),
        pytest.approx((left + 0.5 * (right - left), (top + bottom) / 2), abs=0.06),
    ]
    ticks = {tick["text"]: tick["at"] for tick in plot["x_ticks"]}
    assert (ticks["0.0"], ticks["1.0"]) == (left, right)


# Panels


def in_color(image: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    """Where a gray picture has this colour, or a blend of it that is more than a third colour."""
    away, ray = image.astype(float) - 128, np.float64(rgb[::-1]) - 128
    share = away @ ray / (ray @ ray)
    return (share > 1 / 3) & (np.abs(away - share[:, :, None] * ray).max(axis=2) < 6)


def test_the_colour_of_a_box_says_who_found_it() -> None:
    them = contestants(Finder(ONE), Finder(TWO), Finder([[100, 20, 131, 61]]))
    compared, pixels = compare_picture("a", GRAY, them)
    panels = draw_panels(pixels, compared)
    assert list(panels) == ["retinaface", "dlib-hog", "dlib-cnn"]
    colors = [FOUND_BY_OTHERS, *(own_color(index) for index in range(3))]
    shown = [[np.count_nonzero(in_color(panel, color)) > 20 for color in colors] for panel in panels.values()]
    assert shown == [
        [True, False, False, False],  # dlib HOG has it, too
        [True, False, True, False],
        [False, False, False, True],  # HOG has it, but only RetinaFace is compared with
    ]
    np.testing.assert_array_equal(pixels, GRAY)


def test_panels_shrink_with_their_boxes() -> None:
    them = contestants(Finder([[102, 102, 302, 302]]))
    compared, pixels = compare_picture("a", np.full((400, 800, 3), 128, np.uint8), them)
    [panel] = draw_panels(pixels, compared, max_side=200).values()
    assert panel.shape == (100, 200, 3)
    rows, columns = np.nonzero(in_color(panel, own_color(0)))
    assert (rows.min(), columns.min()) == (pytest.approx(25, abs=1.5), pytest.approx(25, abs=1.5))
    assert (rows.max(), columns.max()) == (pytest.approx(75, abs=1.5), pytest.approx(75, abs=1.5))


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (2000, 2600)])
def test_side_by_side_of_any_size(shape: tuple[int, int]) -> None:
    def refuse(image: np.ndarray) -> None:
        raise ImageError("too large")

    them = contestants(Finder(ONE), Finder([]), Finder(before=refuse))
    compared, pixels = compare_picture("a", np.full((*shape, 3), 128, np.uint8), them)
    sheet = side_by_side(pixels, compared, them)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] >= 3 * 360
    assert sheet.shape[1] <= 3 * 1600 + 16
    assert encode_jpeg(sheet).startswith(b"\xff\xd8")
    alone = side_by_side(pixels, compared, them[:1])
    assert alone.shape[1] < sheet.shape[1]


def test_captions() -> None:
    them = contestants(Finder(ONE), Finder(TWO))
    compared, _ = compare_picture("a", GRAY, them)
    assert panels_module.caption(them[0], compared).startswith("RetinaFace: 1 face, ")
    assert re.fullmatch(r"dlib HOG: 2 faces, \d+ ms", panels_module.caption(them[1], compared))


def test_too_large_for_jpeg() -> None:
    with pytest.raises(ValueError, match="JPEG"):
        encode_jpeg(np.zeros((1, 70000, 3), np.uint8))


def test_the_style_sheet_covers_both_schemes_phones_and_paper() -> None:
    style = (Path(panels_module.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    assert "{{" not in style
    for needed in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem"):
        assert needed in style
    light = dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", style.partition("@media")[0]))
    dark = dict(
        re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", style.partition("dark)")[2].partition("}\n}")[0])
    )
    assert light.keys() == dark.keys()
    for scheme in (light, dark):
        for name, least in {"ink": 7, "faint": 4.5, "link": 4.5, "s0": 3, "s1": 3, "s2": 3, "s3": 3}.items():
            for behind in ("paper", "card"):
                assert contrast(scheme[name], scheme[behind]) >= least, f"{name} on {behind}"


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2."""

    def luminance(color: str) -> float:
        parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)
