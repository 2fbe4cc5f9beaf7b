"""The outcome of an evaluation as JSON takes it, and as people read it.

Average precision, precision and recall are in percent here, with three decimals.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from retinaface_fast._typing import BoolArray

    from .widerface import Scores

__all__ = [
    "HEIGHTS",
    "OPERATING_SCORES",
    "build_report",
    "heights_to_table",
    "report_to_markdown",
    "reports_to_table",
]

#: Where the groups of faces by annotated height begin, in pixels; the last has no end.
HEIGHTS = (0, 16, 32, 64, 128, 256)

#: Scores at which it is said what a user would get who keeps what is >= that.
OPERATING_SCORES = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)

#: At which score recall is stated beside that of all predictions: the default of `FaceDetector`.
_RECALL_SCORE = 0.5
#: The subset of which groups of faces are taken: the one that holds the others.
_LARGEST = "hard"


def build_report(
    scores: Scores,
    *,
    name: str,
    run: Mapping[str, Any],
    timing: Mapping[str, Any] | None = None,
    dataset: str = "WIDER FACE validation",
) -> dict[str, Any]:
    """Sum up an evaluation.

    Args:
        scores: What `evaluate` returned; its ground truth has the subset "hard".
        name: What the result is called, such as the name of the protocol.
        run: How the predictions were made, as JSON takes it: `DetectionRun.record` with protocol, settings,
            model, weights, engine, device and versions. The folder of the pictures, `images`, is left out: a
            report is there to be shown, and the places of somebody's files are nobody's business.
        timing: What it took, as JSON takes it; None where nobody measured.
        dataset: What the pictures are.

    Returns:
        As JSON takes it: `ap` by subset; `events`, with the average precision over the pictures of each,
        scores normalised over the whole set; `heights`, groups of the faces of the subset "hard" by annotated
        height; `operating_points`, what one gets who keeps the predictions with at least some score; and what
        was given. A figure that nothing can be said of, for want of faces, is None.
    """
    truth = scores.truth
    report: dict[str, Any] = {
        "name": name,
        "dataset": dataset,
        "pictures": len(truth),
        "annotated": len(truth.boxes),
        "faces": {subset: int(np.count_nonzero(counted)) for subset, counted in truth.counted.items()},
        "predictions": len(scores.scores),
        "min_overlap": scores.min_overlap,
        "ap": {
            subset: _percent(ap) if scores.truth.counted[subset].any() else None
            for subset, ap in scores.ap.items()
        },
        "run": {key: value for key, value in run.items() if key != "images"},
    }
    if timing is not None:
        report["timing"] = dict(timing)
    report["operating_points"] = [_operating_point(scores, least) for least in OPERATING_SCORES]
    report["heights"] = _by_height(scores)
    report["events"] = _by_event(scores)
    return report


def _percent(share: float) -> float:
    return round(100 * float(share), 3)


def _share(part: int, whole: int) -> float | None:
    return _percent(part / whole) if whole else None


def _operating_point(scores: Scores, least: float) -> dict[str, Any]:
    kept = scores.scores >= least
    precision, recall = {}, {}
    for subset, counted in scores.truth.counted.items():
        right = int(np.count_nonzero(scores.right(counted) & kept))
        shown = int(np.count_nonzero(~scores.left_out(counted) & kept))
        precision[subset] = _share(right, shown)
        recall[subset] = _share(right, int(np.count_nonzero(counted)))
    wrong = kept & ~scores.left_out(scores.truth.counted[_LARGEST])
    wrong &= ~scores.right(scores.truth.counted[_LARGEST])
    return {
        "score": least,
        "precision": precision,
        "recall": recall,
        "false_alarms_per_picture": round(np.count_nonzero(wrong) / max(len(scores.truth), 1), 3),
    }


def _by_height(scores: Scores) -> list[dict[str, Any]]:
    truth = scores.truth
    heights = truth.boxes[:, 3] - truth.boxes[:, 1]
    predicted_heights = scores.boxes[:, 3] - scores.boxes[:, 1]
    matched = scores.overlaps >= scores.min_overlap
    found_at = scores.found_at
    groups = []
    for start, end in zip(HEIGHTS, (*HEIGHTS[1:], math.inf), strict=True):
        counted = truth.counted[_LARGEST] & (heights >= start) & (heights < end)
        faces = int(np.count_nonzero(counted))
        # A false alarm belongs to the faces that it would be one of.
        own = (predicted_heights >= start) & (predicted_heights < end)
        ap = scores.curve(counted, matched | own).average_precision
        groups.append(
            {
                "from": start,
                "below": None if math.isinf(end) else end,
                "faces": faces,
                "recall_at_half": _share(int(np.count_nonzero(found_at[counted] >= _RECALL_SCORE)), faces),
                "recall": _share(int(np.count_nonzero(found_at[counted] > -np.inf)), faces),
                "ap": _percent(ap) if faces else None,
            }
        )
    return groups


def _by_event(scores: Scores) -> list[dict[str, Any]]:
    truth = scores.truth
    events = [name.partition("/")[0] for name in truth.names]
    pictures_of: dict[str, list[int]] = {}
    for picture, event in enumerate(events):
        pictures_of.setdefault(event, []).append(picture)
    box_pictures = np.repeat(np.arange(len(truth)), np.diff(truth.offsets))
    prediction_pictures = np.repeat(np.arange(len(truth)), np.diff(scores.offsets))
    rows = []
    for event, pictures in pictures_of.items():
        is_in = np.zeros(len(truth), dtype=np.bool_)
        is_in[pictures] = True
        in_boxes, in_predictions = is_in[box_pictures], is_in[prediction_pictures]
        faces = {
            subset: int(np.count_nonzero(counted & in_boxes)) for subset, counted in truth.counted.items()
        }
        rows.append(
            {
                "event": event,
                "pictures": len(pictures),
                "faces": faces,
                "ap": {
                    subset: _ap_if_any(scores, counted & in_boxes, in_predictions)
                    for subset, counted in truth.counted.items()
                },
            }
        )
    return rows


def _ap_if_any(scores: Scores, counted: BoolArray, taking_part: BoolArray) -> float | None:
    return _percent(scores.curve(counted, taking_part).average_precision) if counted.any() else None


def reports_to_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Put average precision of several results side by side.

    Args:
        reports: What `build_report` returned, all with the same subsets.

    Returns:
        A Markdown table with a row for each, in percent.
    """
    subsets = list(reports[0]["ap"]) if reports else []
    rows = (
        [report["name"], f"{report['pictures']:,}", *(_figure(report["ap"][subset]) for subset in subsets)]
        for report in reports
    )
    return _table(["AP, %", "pictures", *subsets], rows)


def report_to_markdown(report: Mapping[str, Any]) -> str:
    """Put a result in words and tables.

    Args:
        report: What `build_report` returned.

    Returns:
        Markdown that ends with a line break.
    """
    subsets = list(report["ap"])
    parts = [
        f"# {report['dataset']}: {report['name']}",
        (
            f"{report['pictures']:,} pictures, {report['annotated']:,} annotated boxes, "
            f"{report['predictions']:,} predictions. A box is found at an overlap of "
            f"{report['min_overlap']:g}."
        ),
        _table(
            ["subset", "AP, %", "faces"],
            ([subset, _figure(report["ap"][subset]), f"{report['faces'][subset]:,}"] for subset in subsets),
        ),
        "## How the predictions were made",
        _table(
            ["setting", "value"],
            ([key, _value(value)] for key, value in {**report["run"], **report.get("timing", {})}.items()),
            align="---",
        ),
        "## Predictions from a score on",
        f"Precision and false alarms are those of the subset {_LARGEST}.",
        _table(
            [
                "score >=",
                *(f"recall, {subset}, %" for subset in subsets),
                "precision, %",
                "false alarms per picture",
            ],
            (
                [
                    f"{point['score']:g}",
                    *(_figure(point["recall"][subset]) for subset in subsets),
                    _figure(point["precision"][_LARGEST]),
                    f"{point['false_alarms_per_picture']:.3f}",
                ]
                for point in report["operating_points"]
            ),
        ),
        "## By height of the face",
        (
            f"Faces of the subset {_LARGEST} by their annotated height, from the first number to below the "
            "second. Who finds one of another height is neither right nor wrong; a false alarm counts among "
            "the faces of its own height."
        ),
        heights_to_table(report),
        "## By event",
        "Over the pictures of each, hardest first.",
        _table(
            ["event", "pictures", f"faces, {_LARGEST}", *(f"AP, {subset}, %" for subset in subsets)],
            (
                [
                    event["event"],
                    f"{event['pictures']:,}",
                    f"{event['faces'][_LARGEST]:,}",
                    *(_figure(event["ap"][subset]) for subset in subsets),
                ]
                for event in sorted(
                    report["events"],
                    key=lambda event: math.inf if event["ap"][_LARGEST] is None else event["ap"][_LARGEST],
                )
            ),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def heights_to_table(report: Mapping[str, Any]) -> str:
    """Put the groups of faces by height in a table.

    Args:
        report: What `build_report` returned.

    Returns:
        A Markdown table with a row for each, in percent.
    """
    return _table(
        ["height, pixels", "faces", f"recall from {_RECALL_SCORE:g}, %", "recall of all, %", "AP, %"],
        (
            [
                _range(group["from"], group["below"]),
                f"{group['faces']:,}",
                *(_figure(group[key]) for key in ("recall_at_half", "recall", "ap")),
            ]
            for group in report["heights"]
        ),
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], align: str = "---:") -> str:
    """A Markdown table; all columns but the first are numbers unless `align` says otherwise."""
    lines = [headings, ["---", *[align] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _figure(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.2f}"


def _range(start: int, end: int | None) -> str:
    return f"{start} and more" if end is None else f"{start} to {end}"


def _value(value: Any) -> str:
    """A setting as JSON has it, in as few signs as can be understood."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_value, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
