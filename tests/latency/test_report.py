"""Tables, notes and the plot of a record that is made up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from retinaface_fast.latency import (
    Table,
    has_failed,
    machine_lines,
    main_tables,
    notes,
    plot_latency,
    report_to_markdown,
    turns,
)

if TYPE_CHECKING:
    from pathlib import Path


def timed(seconds: list[float], ours: list[float] | None, **changes: Any) -> dict[str, Any]:
    numbers = changes.pop("at", range(len(seconds)))
    found = turns.Turns([turns.Turn(n, 1, s, s, s, s, 1) for n, s in zip(numbers, seconds, strict=True)])
    summary = found.summary() | {
        "faces": 12,
        "found": 1.0,
        "agreement": None,
        "disputed": None,
        "rounds_planned": 3,
        "suspicion": None,
    }
    summary["times_native"] = turns.ratio(summary, {"rounds": ours}) if ours else None
    return {**summary, **changes}


def row(label: str, left_out: str | None = None) -> dict[str, Any]:
    return {
        "label": label,
        "device": "cpu",
        "ours": label == "native",
        "versions": {"lib-" + label: "1.2"},
        "left_out": left_out,
    }


@pytest.fixture
def record() -> dict[str, Any]:
    ours = [0.010, 0.020, 0.030]
    network = {"median": 0.0095, "quartiles": [0.009, 0.0099]}
    return {
        "schema": 1,
        "retinaface_fast": "0.1.0",
        "machine": {
            "cpu": "A CPU",
            "python": "3.11.7",
            "numpy": "2.4.6",
            "simd_level": "avx2",
            "architecture": "x86_64",
            "system": "Linux",
            "processors_physical": 2,
            "processors_logical": 4,
            "processors": 2,
            "memory": 8 * 2**30,
            "load_before": 1.5,
            "pinned": True,
            "peak_memory": "reset",
        },
        "settings": {"rounds": 3, "picture": "composed"},
        "rows": {
            "native": row("native"),
            "slow": row("slow"),
            "bad": row("bad"),
            "gone": row("gone", "gone is not installed"),
        },
        "pictures": [{"size_hw": [480, 640], "content": "crowd", "faces": 12}],
        "cells": [
            {
                "size_hw": [480, 640],
                "threads": threads,
                "ended": "SIGSEGV at exit" if threads == 2 else None,
                "results": {
                    "native": timed(ours, ours, network=network),
                    "slow": timed([0.3], ours, at=[2], suspicion="2 threads were at work instead of 1"),
                    "bad": {"failed": "its process was ended by SIGSEGV"},
                },
            }
            for threads in (1, 2)
        ],
        "memory": [
            {
                "size_hw": [480, 640],
                "threads": 2,
                "results": {
                    "native": {"loaded": 40e6, "peak": 52e6, "growth": 12e6, "seconds": 0.01},
                    "slow": {
                        "loaded": 4e6,
                        "peak": 5e6,
                        "growth": None,
                        "why_not": "no reason",
                        "seconds": 1,
                    },
                    "bad": {"failed": "its process was ended by SIGSEGV"},
                },
            }
        ],
        "cold": {
            "runs": 2,
            "results": {
                "native": {
                    "min": {"total": 0.2, "import": 0.1, "build": 0.06, "detect": 0.04},
                    "median": {"total": 0.3, "import": 0.2, "build": 0.06, "detect": 0.04},
                },
                "bad": {"failed": "why"},
            },
        },
        "interrupted": False,
    }


def test_tables(record: dict[str, Any]) -> None:
    times, ratios, network, memory, cold = main_tables(record)
    assert times.header == ("", "640x480\n1 thread", "640x480\n2 threads")
    assert times.rows[0][:2] == ("native", "20.0 (50%)")
    assert times.rows[1][:2] == ("slow", "300*?")
    assert times.rows[2][:2] == ("bad", "failed")
    assert len(times.rows) == 3  # who is not installed has no line
    # The only round of the slow one is the last: 0.3 / 0.03.
    assert ratios.rows[1][1] == "10.00*?"
    assert network.rows == (("native", "9.50", "9.50"), ("paper, table 5", "(17.2)", "(5.5)"))
    assert [line[1] for line in memory.rows] == ["12 (52)", "not known (5)", "failed"]
    assert cold.rows[0] == ("native", "300", "200", "60", "40", "200")
    assert [line[0] for line in memory.rows] == ["native", "slow", "bad#"]
    assert cold.rows[1][:2] == ("bad#", "failed")
    assert any(note.startswith("# Failed when its times were measured") for note in notes(record))
    assert has_failed(record)


def test_times_of_disputed_answers_are_marked(record: dict[str, Any]) -> None:
    record["cells"][0]["results"]["native"] |= {"disputed": "slow", "agreement": 0.25, "found": None}
    assert main_tables(record)[0].rows[0][1] == "20.0! (50%)"
    assert "! Nobody knows who finds the right faces: native, 640x480, 1 thread: not as slow." in notes(
        record
    )
    [line] = [line for line in report_to_markdown(record).splitlines() if "25%" in line]
    assert [cell.strip() for cell in line.split("|")][-4:-1] == ["12", "-", "25%"]


def test_the_paper_is_quoted_for_its_threads_only(record: dict[str, Any]) -> None:
    record["machine"]["processors"] = 4
    assert main_tables(record)[2].rows[-1] == ("paper, table 5", "(17.2)", "-")
    for cell in record["cells"]:
        cell["size_hw"] = [100, 100]
    assert len(main_tables(record)[2].rows) == 1
    assert not any("paper" in note for note in notes(record))


def test_notes_say_what_tables_cannot(record: dict[str, Any]) -> None:
    found = "\n".join(notes(record))
    assert "THE MACHINE IS NOT QUIET: 1.50 processors were busy" in found
    assert "Left out: gone (gone is not installed)." in found
    assert "bad FAILED (640x480, 1 thread; 640x480, 2 threads): its process was ended by SIGSEGV" in found
    assert "bad FAILED (cold start): why" in found
    assert "Suspicious, 640x480, 1 thread: slow 2 threads" in found
    assert "Growth of slow (memory, 640x480): no reason" in found
    assert "* Fewer rounds: slow, 640x480, 1 thread: 1 of 3; slow, 640x480, 2 threads: 1 of 3." in found
    assert "quoted, not measured" in found
    assert "did not end well, which concerns no time (640x480, 2 threads): SIGSEGV at exit" in found
    record["machine"] |= {"load_before": 0.1, "pinned": False, "peak_memory": "since the start"}
    record["interrupted"] = True
    found = "\n".join(notes(record))
    assert "NOT QUIET" not in found
    assert "cannot pin" in found
    assert "cannot forget" in found
    assert "INTERRUPTED" in found


def test_markdown_is_whole_and_its_tables_are_tables(record: dict[str, Any]) -> None:
    text = report_to_markdown(record)
    assert "4 processors (2 cores), of which this process may use 2, 8.0 GiB of memory" in text
    assert "lib-native 1.2, lib-slow 1.2, lib-bad 1.2" in text
    assert "12 faces in 640x480; 3 rounds" in text
    assert "| native | " in text
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) == 7  # five, and the details of two
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1
        assert len({len(line) for line in block.splitlines()}) == 1
    assert "15.0 to 25.0" in text  # quartiles of 10, 20 and 30
    assert "10.00 (10.00 to 10.00)" in text


def test_a_table_for_the_terminal_is_aligned() -> None:
    table = Table("What", ("", "a\nb", "long heading"), (("x", "1", "2"), ("longer", "1,000", "-")))
    assert table.to_text().splitlines() == [
        "What",
        "            a  long heading",
        "            b",
        "───────────────────────────",
        "x           1             2",
        "longer  1,000             -",
    ]


def test_nothing_measured_is_no_table(record: dict[str, Any]) -> None:
    record |= {"cells": [], "memory": [], "cold": None}
    assert main_tables(record) == []
    assert not has_failed(record)
    assert report_to_markdown(record).startswith("# Detection benchmark\n")
    assert machine_lines(record)[0].startswith("A CPU")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot(record: dict[str, Any], tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    record["cells"][1]["size_hw"] = [1080, 1920]
    path = plot_latency(record, tmp_path / "new" / f"times.{suffix}")
    data = path.read_bytes()
    assert len(data) > 5_000
    assert data.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    assert plot_latency(record, path).read_bytes() == data


def test_plot_refuses_what_it_cannot_draw(record: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path must end in .png, .svg, .pdf, got 'times.txt'"):
        plot_latency(record, tmp_path / "times.txt")
    for cell in record["cells"]:
        cell["results"] = {"bad": cell["results"]["bad"]}
    with pytest.raises(ValueError, match="record must hold times"):
        plot_latency(record, tmp_path / "times.png")
    assert not list(tmp_path.iterdir())
