"""Reports: their figures against the oracle, and what they look like."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from retinaface_fast.data import SUBSETS
from retinaface_fast.evaluation import (
    Scores,
    build_report,
    evaluate,
    heights_to_table,
    report_to_markdown,
    reports_to_table,
)
from retinaface_fast.evaluation.report import HEIGHTS, OPERATING_SCORES
from tests.evaluation.conversion import to_predictions, to_truth
from tests.evaluation.made_up import made_up_set
from tests.reference import wider_ap
from tests.reference.wider_ap import Annotations

Array = np.ndarray[Any, Any]
FOUND, TRUTH = made_up_set()
RUN = {
    "protocol": "paper",
    "tta": {"short_sides": [500, 800], "flip": True},
    "keep_top_k": 750,
    "nms_threshold": 0.4,
    "device": None,
}


@pytest.fixture(scope="module")
def scores() -> Scores:
    truth = to_truth(TRUTH)
    return evaluate(to_predictions(FOUND, truth.names), truth)


@pytest.fixture(scope="module")
def report(scores: Scores) -> dict[str, Any]:
    return build_report(scores, name="paper", run=RUN, timing={"seconds": 12.0})


def test_what_was_given_and_counted(report: dict[str, Any]) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["name"], report["dataset"]) == ("paper", "WIDER FACE validation")
    assert (report["run"], report["timing"], report["min_overlap"]) == (RUN, {"seconds": 12.0}, 0.5)
    assert report["pictures"] == len(TRUTH)
    assert report["annotated"] == sum(len(one.boxes) for one in TRUTH.values())
    assert report["predictions"] == sum(map(len, FOUND.values()))
    assert report["faces"] == {
        subset: sum(int(one.counted[subset].sum()) for one in TRUTH.values()) for subset in SUBSETS
    }


def test_average_precision_is_in_percent(report: dict[str, Any]) -> None:
    expected = wider_ap.average_precision(FOUND, TRUTH)
    assert report["ap"] == {subset: round(100 * expected[subset], 3) for subset in SUBSETS}
    assert 20 < report["ap"]["hard"] < 95


def test_events(report: dict[str, Any]) -> None:
    """The oracle, too, takes the range of the scores from pictures whose annotations it does not have."""
    assert [event["event"] for event in report["events"]] == ["0--Parade", "12--Group"]
    for event in report["events"]:
        inside = {name: one for name, one in TRUTH.items() if name.startswith(f"{event['event']}/")}
        expected = wider_ap.average_precision(FOUND, inside)
        assert event["ap"] == {subset: round(100 * expected[subset], 3) for subset in SUBSETS}
        assert event["pictures"] == len(inside)
        assert event["faces"]["easy"] == sum(int(one.counted["easy"].sum()) for one in inside.values())


def best_overlap(row: Array, faces: Array) -> tuple[int, float]:
    overlaps = wider_ap.overlaps(row[:4], faces)
    return (int(overlaps.argmax()), float(overlaps.max())) if len(faces) else (-1, 0.0)


@pytest.mark.parametrize("group", range(len(HEIGHTS)))
def test_heights(report: dict[str, Any], group: int) -> None:
    """Only faces of that height count; false alarms of another height only stretch the scores."""
    start, end = (*HEIGHTS, 10**9)[group : group + 2]
    truth, found = {}, {}
    elsewhere = []
    hits_at_half = hits = 0
    for name, annotated in TRUTH.items():
        heights = annotated.boxes[:, 3]
        counted = annotated.counted["hard"] & (heights >= start) & (heights < end)
        truth[name] = Annotations(annotated.boxes, dict.fromkeys(SUBSETS, counted))
        matches = [best_overlap(row, annotated.boxes) for row in FOUND[name]]
        stays = np.array(
            [o >= 0.5 or start <= row[3] < end for (_, o), row in zip(matches, FOUND[name], strict=True)],
            dtype=bool,
        )
        found[name] = FOUND[name][stays]
        elsewhere.append(FOUND[name][~stays])
        for face in np.flatnonzero(counted):
            by = [
                row[4]
                for (best, o), row in zip(matches, FOUND[name], strict=True)
                if (best, o >= 0.5) == (face, True)
            ]
            hits += bool(by)
            hits_at_half += bool(by) and max(by) >= 0.5
    found["elsewhere"] = np.concatenate(elsewhere)
    faces = sum(int(one.counted["hard"].sum()) for one in truth.values())
    assert faces > 0
    assert report["heights"][group] == {
        "from": start,
        "below": end if end < 10**9 else None,
        "faces": faces,
        "recall_at_half": round(100 * hits_at_half / faces, 3),
        "recall": round(100 * hits / faces, 3),
        "ap": round(100 * wider_ap.average_precision(found, truth)["hard"], 3),
    }


def test_operating_points(report: dict[str, Any]) -> None:
    assert [point["score"] for point in report["operating_points"]] == list(OPERATING_SCORES)
    for point in report["operating_points"]:
        for subset in SUBSETS:
            right = shown = 0
            for name, rows in FOUND.items():
                if len(TRUTH[name].boxes):
                    ranked = rows[np.argsort(-rows[:, 4], kind="stable")]
                    masks = wider_ap.judge(ranked, TRUTH[name].boxes, TRUTH[name].counted[subset], 0.5)
                    kept = ranked[:, 4] >= point["score"]
                    right += int((masks[0] & kept).sum())
                    shown += int((masks[1] & kept).sum())
            recall = 100 * right / report["faces"][subset]
            assert point["recall"][subset] == pytest.approx(recall, abs=6e-4)
            assert point["precision"][subset] == (
                pytest.approx(100 * right / shown, abs=6e-4) if shown else None
            )
        assert point["false_alarms_per_picture"] == pytest.approx((shown - right) / len(TRUTH), abs=6e-4)


def test_where_nothing_can_be_said() -> None:
    boxes = np.array([[0, 0, 40, 40]], dtype=np.float64)
    counted = {"easy": np.array([False]), "medium": np.array([False]), "hard": np.array([True])}
    truth = to_truth({"a/b": Annotations(boxes, counted)})
    scores = evaluate(to_predictions({"a/b": np.empty((0, 5))}, truth.names), truth)
    report = build_report(scores, name="nothing", run={})
    json.dumps(report, allow_nan=False)
    assert report["events"][0]["ap"] == {"easy": None, "medium": None, "hard": 0.0}
    assert report["operating_points"][0]["precision"]["hard"] is None
    assert [group["ap"] for group in report["heights"]] == [None, None, 0.0, None, None, None]
    assert "timing" not in report
    assert "| a | 1 | 1 | - | - | 0.00 |" in report_to_markdown(report)


def rows_of(markdown: str) -> list[list[str]]:
    return [line[2:-2].split(" | ") for line in markdown.splitlines() if line.startswith("| ")]


def test_markdown_holds_the_figures(report: dict[str, Any]) -> None:
    text = report_to_markdown(report)
    assert text.startswith("# WIDER FACE validation: paper\n")
    assert text.endswith(" |\n")
    rows = rows_of(text)
    for subset in SUBSETS:
        assert [subset, f"{report['ap'][subset]:.2f}", str(report["faces"][subset])] in rows
    assert ["tta", "short_sides 500 800, flip yes"] in rows
    assert ["device", "none"] in rows
    assert ["nms_threshold", "0.4"] in rows
    assert ["seconds", "12"] in rows
    # Hardest first.
    events = [row for row in rows if "--" in row[0] and ":" not in row[0] and row[0] != "---"]
    hardest_first = sorted(report["events"], key=lambda event: event["ap"]["hard"])
    assert [(row[0], row[-1]) for row in events] == [
        (event["event"], f"{event['ap']['hard']:.2f}") for event in hardest_first
    ]


def test_every_table_has_as_many_cells_in_each_row(report: dict[str, Any]) -> None:
    widths: list[set[int]] = [set()]
    for line in report_to_markdown(report).splitlines():
        if line.startswith("| "):
            widths[-1].add(line.count(" | "))
        elif widths[-1]:
            widths.append(set())
    assert [len(width) for width in widths if width] == [1] * 5


def test_tables_of_several(report: dict[str, Any]) -> None:
    other = {**report, "name": "a|b"}
    rows = rows_of(reports_to_table([report, other]))
    assert rows[0] == ["AP, %", "pictures", *SUBSETS]
    assert rows[2] == ["paper", "12", *(f"{report['ap'][subset]:.2f}" for subset in SUBSETS)]
    assert rows[3][0] == "a\\|b"
    assert [row[0] for row in rows_of(heights_to_table(report))[2:]] == [
        *("0 to 16", "16 to 32", "32 to 64", "64 to 128", "128 to 256", "256 and more")
    ]
