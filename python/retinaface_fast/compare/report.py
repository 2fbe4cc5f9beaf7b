"""The report of a comparison: one HTML file that needs no server, no network and no script."""

from __future__ import annotations

import base64
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_fast.detections import LANDMARK_NAMES
from retinaface_fast.errors import MissingDependencyError

from .panels import FOUND_BY_OTHERS, own_color
from .plots import curve_plot, height_plot

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_report_packages", "render_report"]

#: What a cell says that has no number.
_ABSENT = "\N{EN DASH}"

_TEMPLATES = Path(__file__).parent / "templates"


def check_report_packages() -> None:
    """Check that what the report is made with is there, before anyone waits for it.

    Raises:
        MissingDependencyError: It is not.
    """
    _jinja()


def _jinja() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependencyError("jinja2", purpose="the report of a comparison", extra="dlib") from error
    return jinja2


def render_report(
    summary: Mapping[str, Any], images: Mapping[int, Mapping[str, bytes]], *, title: str | None = None
) -> str:
    """Put a comparison into one HTML page.

    The pictures and plots are inside; the page asks for nothing from anywhere, and forbids the browser to.

    Args:
        summary: What `summarize_comparison` returned.
        images: For each picture that is shown, by its index in `summary["pictures"]`, the JPEG file of each
            detector by its name. The others are counted and not shown; those that failed are listed.
        title: Its heading; None says which detectors were compared on how many pictures.

    Returns:
        The page. Names of files may hold anything: they are escaped, and what no UTF-8 can hold is written
        with backslashes.

    Raises:
        MissingDependencyError: Jinja2 is not installed.
    """
    jinja2 = _jinja()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=lambda number: f"{number:,}",
        percent=lambda share: _ABSENT if share is None else f"{100 * share:.1f}",
        milliseconds=_milliseconds,
        threads=lambda number: f"{number:,} thread{'' if number == 1 else 's'}",
        faces=lambda number: f"{number:,} face{'' if number == 1 else 's'}",
        pictures=lambda number: f"{number:,} picture{'' if number == 1 else 's'}",
        words=lambda name: name.replace("_", " "),
    )
    truth = summary["ground_truth"]
    subsets = [] if truth is None else [subset for subset, faces in truth["faces"].items() if faces]
    page: str = environment.get_template("report.html.j2").render(
        summary=summary,
        detectors=summary["detectors"],
        reference=summary["detectors"][0],
        others=summary["detectors"][1:],
        has_dlib=any(detector["name"].startswith("dlib-") for detector in summary["detectors"]),
        title=title or _title(summary),
        shown=[
            _shown(picture, images[index])
            for index, picture in enumerate(summary["pictures"])
            if index in images
        ],
        failures=_failures(summary),
        heights=height_plot(summary),
        curves=[] if truth is None else [(name, curve_plot(truth["curves"], name)) for name in subsets],
        landmark_names=LANDMARK_NAMES,
        colors={"shared": _css(FOUND_BY_OTHERS), "own": [_css(own_color(i)) for i in range(9)]},
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _title(summary: Mapping[str, Any]) -> str:
    labels = [detector["label"] for detector in summary["detectors"]]
    names = labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
    number = summary["num_pictures"]
    return f"{names} on {number:,} picture{'' if number == 1 else 's'}"


def _css(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return _ABSENT
    return f"{1000 * seconds:.1f}" if seconds < 0.01 else f"{1000 * seconds:,.0f}"


def _failures(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Pictures that could not be read, and detectors that refused one."""
    labels = {detector["name"]: detector["label"] for detector in summary["detectors"]}
    found = []
    for picture in summary["pictures"]:
        if "error" in picture:
            found.append({"name": picture["name"], "who": "not read", "error": picture["error"]})
        else:
            for name, search in picture["searches"].items():
                for key, what in (("error", ""), ("scored_error", ", for average precision")):
                    if key in search:
                        who = labels[name] + what
                        found.append({"name": picture["name"], "who": who, "error": search[key]})
    return found


def _shown(picture: Mapping[str, Any], images: Mapping[str, bytes]) -> dict[str, Any]:
    """One picture as the template takes it: a column for each detector."""
    height, width = picture["image_size"]
    columns = []
    for name, search in picture["searches"].items():
        pairs = picture["pairs"].get(name)
        jpeg = images.get(name)
        rows = [] if pairs is None else pairs["landmark_distances"]
        distances = [distance for row in rows for distance in row if distance is not None]
        columns.append(
            {
                "name": name,
                "error": search.get("error"),
                "faces": None if "error" in search else len(search["faces"]),
                "seconds": search.get("seconds"),
                "matched": None if pairs is None else len(pairs["matched"]),
                "only_first": None if pairs is None else len(pairs["only_first"]),
                "only_second": None if pairs is None else len(pairs["only_second"]),
                "distance": statistics.median(distances) if distances else None,
                "image": None
                if jpeg is None
                else "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii"),
            }
        )
    return {"name": picture["name"], "width": width, "height": height, "columns": columns}
