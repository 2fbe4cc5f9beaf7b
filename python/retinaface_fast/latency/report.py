"""What a run has found, as tables: for the terminal, and as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cold import PARTS as COLD_PARTS
from .table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "PAPER",
    "detail_tables",
    "has_failed",
    "machine_lines",
    "main_tables",
    "notes",
    "report_to_markdown",
]

#: Milliseconds of the RetinaFace paper, table 5, by size and by whether all threads worked.
PAPER = {
    (480, 640): {"one": 17.2, "all": 5.5},
    (1080, 1920): {"one": 130.4, "all": 50.3},
}
PAPER_LABEL = "paper, table 5"
PAPER_NOTE = (
    "The line of the paper is quoted, not measured: MobileNet-0.25 alone, compiled by TVM, on one and on "
    "several threads of an Intel i7-6700K."
)
#: Busier than so many processors before the start, a machine is not quiet.
QUIET_LOAD = 0.3
_ABSENT = "-"
_FEWER, _SUSPICIOUS, _DISPUTED, _WITHOUT_TIMES = "*", "?", "!", "#"


def main_tables(record: Mapping[str, Any]) -> list[Table]:
    """Return the tables that a run is made for; one that would be empty is left out."""
    tables = []
    if record["cells"]:
        tables += [
            _cells_table(
                record,
                "Detection, array to faces: median in ms, and in brackets the distance of the quartiles",
                _median,
            ),
            _cells_table(record, "The same, times native: median of the rounds", _times_native),
            _network_table(record),
        ]
    if record["memory"]:
        tables.append(_memory_table(record))
    if record["cold"]:
        tables.append(_cold_table(record))
    return [table for table in tables if table.rows]


def detail_tables(record: Mapping[str, Any]) -> list[Table]:
    """Return a table with everything for each size and number of threads."""
    header = (
        "",
        "ms, median",
        "quartiles",
        "least",
        "times native",
        "network, ms",
        "CPU, ms",
        "processors busy",
        "rounds",
        "faces",
        "of the places",
        "as the others",
    )
    tables = []
    for cell in record["cells"]:
        rows = []
        for name, result in cell["results"].items():
            if "median" not in result:
                continue
            times, network = result["times_native"], result.get("network")
            rows.append(
                (
                    _label(record, name),
                    _ms(result["median"]),
                    " to ".join(map(_ms, result["quartiles"])),
                    _ms(result["min"]),
                    f"{times['median']:.2f} ({times['min']:.2f} to {times['max']:.2f})" if times else _ABSENT,
                    _ms(network["median"]) if network else _ABSENT,
                    _ms(result["cpu"]),
                    f"{result['processors']:.2f}",
                    str(len(result["rounds"])),
                    str(result["faces"]),
                    _share(result["found"]),
                    _share(result["agreement"]),
                )
            )
        title = f"{_named(cell['size_hw'])}, {_threads(cell['threads'])}"
        if rows:
            tables.append(Table(title, header, tuple(rows)))
    return tables


def _without_times(record: Mapping[str, Any]) -> set[str]:
    """Who has failed in a cell: its answer was wrong, or it gave none."""
    return {name for cell in record["cells"] for name, found in cell["results"].items() if "failed" in found}


def _share(share: float | None) -> str:
    return _ABSENT if share is None else f"{share:.0%}"


def has_failed(record: Mapping[str, Any]) -> bool:
    """Whether anyone has failed anywhere."""
    found = [entry["results"] for entry in (*record["cells"], *record["memory"])]
    if record["cold"]:
        found.append(record["cold"]["results"])
    return any("failed" in result for results in found for result in results.values())


def notes(record: Mapping[str, Any]) -> list[str]:
    """Return what is to be known beside the tables: doubts, failures, and what was left out."""
    return list(_notes(record))


def _notes(record: Mapping[str, Any]) -> Iterator[str]:
    yield from _notes_on_machine(record)
    absent = [
        f"{row['label']} ({row['left_out']})"
        for row in record["rows"].values()
        if row["left_out"] is not None
    ]
    if absent:
        yield f"Left out: {'; '.join(absent)}."
    results = [
        (place, _label(record, name), result)
        for place, found in _places(record)
        for name, result in found.items()
    ]
    # The same reason at several places is one note.
    reasons: dict[tuple[str, str], list[str]] = {}
    for key, what in (("failed", "{} FAILED"), ("left_out", "{} is left out"), ("why_not", "Growth of {}")):
        for place, label, result in results:
            if key in result:
                reasons.setdefault((what.format(label), result[key]), []).append(place)
    for (what, why), places in reasons.items():
        yield f"{what} ({'; '.join(places)}): {why}"
    for cell in record["cells"]:
        if cell["ended"]:
            place = f"{_named(cell['size_hw'])}, {_threads(cell['threads'])}"
            yield f"The process did not end well, which concerns no time ({place}): {cell['ended']}"
    yield from _doubts(results)
    disputed = [
        f"{label}, {place}: not as {found['disputed']}"
        for place, label, found in results
        if found.get("disputed")
    ]
    if disputed:
        yield f"{_DISPUTED} Nobody knows who finds the right faces: {'; '.join(disputed)}."
    if _without_times(record) and (record["memory"] or record["cold"]):
        yield (
            f"{_WITHOUT_TIMES} Failed when its times were measured: what it did with this memory, or after "
            "this start, may not be finding faces."
        )
    fewer = [
        f"{label}, {place}: {len(result['rounds'])} of {record['settings']['rounds']}"
        for place, label, result in results
        if "rounds" in result and _is_short(record, result)
    ]
    if fewer:
        yield f"{_FEWER} Fewer rounds: {'; '.join(fewer)}."
    if any(tuple(cell["size_hw"]) in PAPER for cell in record["cells"]):
        yield PAPER_NOTE


def _doubts(results: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Iterator[str]:
    """Suspicious times, those of a place in one line."""
    doubts: dict[tuple[str, bool], list[str]] = {}
    for place, label, result in results:
        if result.get("suspicion"):
            too_few = result["suspicion"].startswith("only")
            short = f"{result['processors']:.2f}" if too_few else result["suspicion"]
            doubts.setdefault((place, too_few), []).append(f"{label} {short}")
    for (place, too_few), found in doubts.items():
        reason = "too few processors were busy, " if too_few else ""
        yield f"{_SUSPICIOUS} Suspicious, {place}: {reason}{'; '.join(found)}."


def _notes_on_machine(record: Mapping[str, Any]) -> Iterator[str]:
    machine = record["machine"]
    if record["interrupted"]:
        yield "INTERRUPTED: what was measured until then."
    if machine["load_before"] is not None and machine["load_before"] > QUIET_LOAD:
        yield (
            f"THE MACHINE IS NOT QUIET: {machine['load_before']:.2f} processors were busy before the start. "
            "Ratios suffer less than times."
        )
    if not machine["pinned"]:
        yield "This system cannot pin processes: threads may have moved between processors."
    if machine["peak_memory"] != "reset" and record["memory"]:
        yield (
            "This system cannot forget an earlier peak of memory: where loading needed more, growth is not "
            "known."
        )


def _places(record: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for entry in record["memory"]:
        # What failed there has failed everywhere, and is told of the times.
        told = {
            name: row for name, row in entry["results"].items() if "why_not" in row or not record["cells"]
        }
        yield f"memory, {_named(entry['size_hw'])}", told
    for cell in record["cells"]:
        yield f"{_named(cell['size_hw'])}, {_threads(cell['threads'])}", cell["results"]
    if record["cold"]:
        yield "cold start", record["cold"]["results"]


def report_to_markdown(record: Mapping[str, Any]) -> str:
    """Return everything as Markdown, machine and versions first."""
    parts = ["# Detection benchmark", "", *(f"- {line}" for line in machine_lines(record)), ""]
    for table in main_tables(record):
        parts += [table.to_markdown(), ""]
    parts += [f"- {note}" for note in notes(record)]
    details = detail_tables(record)
    if details:
        parts += ["", "## Each size and number of threads", ""]
        for table in details:
            parts += [table.to_markdown(), ""]
    return "\n".join(parts).rstrip() + "\n"


def machine_lines(record: Mapping[str, Any]) -> list[str]:
    """Return what was measured, and on what, in a few lines."""
    machine, settings = record["machine"], record["settings"]
    memory = "" if machine["memory"] is None else f", {machine['memory'] / 2**30:.1f} GiB of memory"
    physical = machine["processors_physical"]
    processors = f"{machine['processors_logical']} processors" + (
        "" if physical is None else f" ({physical} cores)"
    )
    if machine["processors"] != machine["processors_logical"]:
        processors += f", of which this process may use {machine['processors']}"
    versions: dict[str, str] = {}
    for row in record["rows"].values():
        if row["left_out"] is None:
            versions |= row["versions"]
    software = [f"retinaface_fast {record['retinaface_fast']} ({machine['simd_level']})"]
    software += [f"{name} {number}" for name, number in versions.items()]
    picture = settings["picture"]
    shown = "a crowd composed of one portrait at known places" if picture == "composed" else picture
    faces = ", ".join(
        f"{entry['faces']} {'face' if entry['faces'] == 1 else 'faces'} in {_named(entry['size_hw'])}"
        for entry in record["pictures"]
        if entry["faces"] is not None
    )
    load = machine["load_before"]
    rounds = "1 round" if settings["rounds"] == 1 else f"{settings['rounds']} rounds"
    return [
        f"{machine['cpu']}, {machine['architecture']}: {processors}{memory}",
        f"{machine['system']}, Python {machine['python']}, NumPy {machine['numpy']}"
        + ("" if load is None else f"; {load:.2f} processors busy before the start"),
        ", ".join(software),
        f"{shown}{f': {faces}' if faces else ''}; {rounds}",
    ]


# Cells


def _cells_table(record: Mapping[str, Any], title: str, show: Any) -> Table:
    cells = record["cells"]
    header = ("", *(f"{_named(cell['size_hw'])}\n{_threads(cell['threads'])}" for cell in cells))
    rows = [
        (_label(record, name), *(show(record, cell["results"].get(name)) for cell in cells))
        for name, row in record["rows"].items()
        if row["left_out"] is None
    ]
    return Table(title, header, tuple(rows))


def _median(record: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    if result is None or "left_out" in result:
        return _ABSENT
    if "failed" in result:
        return "failed"
    spread = "" if result["spread"] is None else f" ({result['spread']:.0%})"
    return f"{_ms(result['median'])}{_marks(record, result)}{spread}"


def _times_native(record: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    if result is None or not result.get("times_native"):
        return _ABSENT
    return f"{result['times_native']['median']:.2f}{_marks(record, result)}"


def _marks(record: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    marks = (
        (_FEWER, _is_short(record, result)),
        (_SUSPICIOUS, result["suspicion"]),
        (_DISPUTED, result["disputed"]),
    )
    return "".join(mark for mark, applies in marks if applies)


def _is_short(record: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    return len(result["rounds"]) < int(record["settings"]["rounds"])


def _network_table(record: Mapping[str, Any]) -> Table:
    cells = record["cells"]

    def _show(record: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
        return _ms(result["network"]["median"]) if result and "network" in result else _ABSENT

    table = _cells_table(record, "The network alone, in the same calls: median in ms", _show)
    rows = [row for row in table.rows if set(row[1:]) != {_ABSENT}]
    most = record["machine"]["processors"]
    quoted = []
    for cell in cells:
        known = PAPER.get(tuple(cell["size_hw"]), {})
        which = "one" if cell["threads"] == 1 else "all" if cell["threads"] == most else ""
        quoted.append(f"({known[which]})" if which in known else _ABSENT)
    if rows and set(quoted) != {_ABSENT}:
        rows.append((PAPER_LABEL, *quoted))
    return Table(table.title, table.header, tuple(rows))


# Memory and cold start


def _memory_table(record: Mapping[str, Any]) -> Table:
    entries = record["memory"]
    header = ("", *(f"{_named(entry['size_hw'])}\n{_threads(entry['threads'])}" for entry in entries))

    def _show(result: Mapping[str, Any]) -> str:
        if "left_out" in result:
            return _ABSENT
        if "failed" in result:
            return "failed"
        growth = "not known" if result["growth"] is None else f"{result['growth'] / 1e6:,.0f}"
        return f"{growth} ({result['peak'] / 1e6:,.0f})"

    untimed = _without_times(record)
    rows = [
        (
            _label(record, name) + _WITHOUT_TIMES * (name in untimed),
            *(_show(entry["results"].get(name, {"left_out": ""})) for entry in entries),
        )
        for name, row in record["rows"].items()
        if row["left_out"] is None
    ]
    title = "Memory of a process: growth while it detects, in MB, and in brackets its peak"
    return Table(title, header, tuple(rows))


def _cold_table(record: Mapping[str, Any]) -> Table:
    rows = []
    untimed = _without_times(record)
    for name, result in record["cold"]["results"].items():
        label = _label(record, name) + _WITHOUT_TIMES * (name in untimed)
        if "failed" in result:
            rows.append((label, "failed", *[_ABSENT] * len(COLD_PARTS)))
        else:
            middle = result["median"]
            rows.append(
                (
                    label,
                    *(f"{middle[part] * 1e3:,.0f}" for part in COLD_PARTS),
                    f"{result['min']['total'] * 1e3:,.0f}",
                )
            )
    header = ("", "total", "import", "construction", "first detection", "least total")
    title = f"Cold start, 640x480: median of {record['cold']['runs']} fresh processes in ms"
    return Table(title, header, tuple(rows))


def _label(record: Mapping[str, Any], name: str) -> str:
    label: str = record["rows"][name]["label"]
    return label


def _named(size_hw: Sequence[int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"


def _threads(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _ms(seconds: float) -> str:
    """Milliseconds with three digits that count."""
    milliseconds = seconds * 1e3
    return (
        f"{milliseconds:,.0f}"
        if milliseconds >= 100
        else f"{milliseconds:.1f}"
        if milliseconds >= 10
        else (f"{milliseconds:.2f}")
    )
