"""The tables of results: that they say what the stored files say, and that they are made and not typed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("benchmarks.results", reason="the benchmarks are not here")

from benchmarks import results

from retinaface_fast.evaluation import PROTOCOLS

REPORT: dict[str, Any] = {
    "name": "original",
    "dataset": "WIDER FACE validation",
    "pictures": 1092,
    "faces": {"easy": 10, "medium": 20, "hard": 30},
    "predictions": 99,
    "min_overlap": 0.5,
    "ap": {"easy": 90.668, "medium": 88.896, "hard": 74.939},
    "run": {
        "protocol": "original",
        "model": "mobilenet0.25",
        "weights_sha256": "0" * 64,
        "engine": "native",
        "device": "cpu",
        "version": "0.1.0",
        **PROTOCOLS["original"].to_dict(),
    },
    "heights": [{"from": 0, "below": None, "faces": 30, "recall_at_half": 60.5, "recall": 80.25, "ap": None}],
    "events": [{"event": "0--Parade"}],
}


def test_the_tables_are_those_of_the_stored_results() -> None:
    """If this fails: python -m benchmarks.results."""
    for path, (text, wanted) in results.pages().items():
        assert text == wanted, path


def test_every_stored_result_says_how_it_was_made() -> None:
    for result in results.stored():
        assert set(result) >= results.NEEDED
        assert "events" not in result
        assert set(result["run"]) >= results.NEEDED_OF_RUN
        assert re.fullmatch("[0-9a-f]{64}", result["run"]["weights_sha256"])
        assert "/" not in result["run"].get("names", "")
        assert "images" not in result["run"]
        assert all(0 < result["ap"][subset] < 100 for subset in results.SUBSETS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with the pages and no result."""
    for file, tables in results.TABLES.items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        marks = [
            f"{results.BEGIN.format(name=name)}\nold\n{results.END.format(name=name)}" for name in tables
        ]
        path.write_text("Before\n\n" + "\n\nBetween\n\n".join(marks) + "\n\nAfter\n", encoding="utf-8")
    return tmp_path


def given(folder: Path, **changes: Any) -> str:
    path = folder / "given.json"
    path.write_text(json.dumps({**REPORT, **changes}), encoding="utf-8")
    return str(path)


def test_a_result_is_stored_and_shown(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert results.main(["--check"], root) == 1
    assert results.main(["--add", given(root)], root) == 0
    assert results.main(["--check"], root) == 0
    path = root / "docs/results/widerface-mobilenet0.25-original-native-1092.json"
    assert json.loads(path.read_text(encoding="utf-8")) == {
        key: value for key, value in REPORT.items() if key != "events"
    }
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert "| `original` | mobilenet0.25 | native | 1,092 | 90.67 | 88.90 | 74.94 |" in readme
    assert readme.startswith("Before\n\n<!-- results:")
    assert readme.endswith(" -->\n\nAfter\n")
    assert "old" not in readme
    accuracy = (root / "docs/accuracy.md").read_text(encoding="utf-8")
    assert "| 0 and more | 30 | 60.50 | 80.25 | - |" in accuracy
    capsys.readouterr()
    assert results.main([], root) == 0
    assert capsys.readouterr() == ("", "")


def test_a_typed_figure_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.main(["--add", given(root)], root)
    readme = root / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8").replace("90.67", "99.67"), encoding="utf-8")
    assert results.main(["--check"], root) == 1
    assert "README.md is not what docs/results says" in capsys.readouterr().err
    results.main([], root)
    assert "90.67" in readme.read_text(encoding="utf-8")


def test_order(root: Path) -> None:
    for protocol, engine, pictures in (
        ("vga", "native", 284),
        ("short1600", "native", 1092),
        ("original", "torch", 1092),
        ("original", "native", 1092),
    ):
        run = {**REPORT["run"], **PROTOCOLS[protocol].to_dict(), "protocol": protocol, "engine": engine}
        results.add(Path(given(root, run=run, pictures=pictures)), root)
    found = results.stored(root)
    assert [(one["run"]["protocol"], one["run"]["engine"]) for one in found] == [
        ("original", "native"),
        ("original", "torch"),
        ("short1600", "native"),
        ("vga", "native"),
    ]


def test_a_part_is_shown_by_the_name_of_its_list(root: Path) -> None:
    for names in ("/home/somebody/images.txt", "C:\\somebody\\images.txt", "images.txt"):
        run = {**REPORT["run"], "names": names, "images": "/home/somebody/images"}
        path = results.add(Path(given(root, run=run)), root)
        assert "somebody" not in path.read_text(encoding="utf-8")
        assert "| native | 1,092 (`images.txt`) | 90.67 |" in results.table_of_results(results.stored(root))


def test_a_protocol_that_has_changed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its figures would stand beside the name of another search."""
    run = {**REPORT["run"], "top_k": 400}
    del run["plus_one_widths"]
    said = "with top_k 400 instead of 5000, plus_one_widths 'nothing' instead of True: measure again"
    assert results.main(["--add", given(root, run=run)], root) == 2
    assert said in capsys.readouterr().err
    path = results.add(Path(given(root)), root)
    results.main([], root)
    path.write_text(json.dumps({**REPORT, "run": run}), encoding="utf-8")
    for options in (["--check"], []):
        assert results.main(options, root) == 2
        assert f"{path} was not made by the protocol original as it is now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected what build_report returns"),
        (json.dumps({**REPORT, "run": {"protocol": "original"}}), "does not say device, engine, model"),
        (json.dumps({**REPORT, "run": {**REPORT["run"], "protocol": "mine"}}), "'mine' is none of original"),
        (None, "cannot be read as JSON"),
    ],
)
def test_what_cannot_be_stored(
    root: Path, text: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "given.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert results.main(["--add", str(path)], root) == 2
    assert said in capsys.readouterr().err
    assert not (root / "docs/results").exists()


@pytest.mark.parametrize("change", [lambda t: t.replace("<!-- end", "<!--"), lambda t: t + t, lambda t: ""])
def test_a_page_without_the_place_for_a_table(
    root: Path, change: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = root / "README.md"
    readme.write_text(change(readme.read_text(encoding="utf-8")), encoding="utf-8")
    assert results.main([], root) == 2
    assert "README.md: expected once" in capsys.readouterr().err
