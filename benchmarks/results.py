"""The tables of results in README.md and the documentation, made from stored JSON.

    python -m benchmarks.results                 # rewrite the tables
    python -m benchmarks.results --add FILE ...  # store results first: reports of an evaluation
    python -m benchmarks.results --check         # exit code 1 where a table is not that of the JSON

Results are in docs/results, one file each: what `retinaface_fast.evaluation.build_report` returned, without
its table of events. Nobody types a figure: a table stands between two comments, and what is between them is
replaced.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_fast.evaluation import PROTOCOLS, heights_to_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
STORED = Path("docs") / "results"
BEGIN = "<!-- {name}: made by python -m benchmarks.results -->"
END = "<!-- end of {name} -->"
SUBSETS = ("easy", "medium", "hard")
#: Protocols of which there is a table by height of the face.
HEIGHTS_OF = ("original", "short1600", "paper")
#: What a report has to say to be stored.
NEEDED = {"name", "dataset", "pictures", "faces", "predictions", "min_overlap", "ap", "run", "heights"}
NEEDED_OF_RUN = {"protocol", "model", "weights_sha256", "engine", "device", "version"}


class ResultsError(Exception):
    """A result cannot be stored or a table cannot be made; the message says why."""


def stored(root: Path = ROOT) -> list[dict[str, Any]]:
    """The results: those on most pictures first, then by weights, protocol and engine.

    Raises:
        ResultsError: One was made by another protocol than the one that has its name now.
    """
    results = []
    for path in sorted((root / STORED).glob("widerface-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        check_settings(path, result["run"])
        results.append(result)
    protocols = list(PROTOCOLS)

    def order(result: Mapping[str, Any]) -> tuple[Any, ...]:
        run = result["run"]
        place = protocols.index(run["protocol"])
        return -result["pictures"], run["model"], place, run["engine"], run.get("names", "")

    return sorted(results, key=order)


def check_settings(path: Path, run: Mapping[str, Any]) -> None:
    """Check that a run has the settings of its protocol as it is now.

    Raises:
        ResultsError: It has others, or there is no such protocol.
    """
    protocol = PROTOCOLS.get(run["protocol"])
    if protocol is None:
        raise ResultsError(f"{path}: its protocol {run['protocol']!r} is none of {', '.join(PROTOCOLS)}")
    absent = "nothing"
    others = [
        f"{name} {run.get(name, absent)!r} instead of {wanted!r}"
        for name, wanted in protocol.to_dict().items()
        if run.get(name, absent) != wanted
    ]
    if others:
        raise ResultsError(
            f"{path} was not made by the protocol {protocol.name} as it is now, but with "
            f"{', '.join(others)}: measure again"
        )


def add(path: Path, root: Path = ROOT) -> Path:
    """Store a report and return its place.

    Raises:
        ResultsError: The file is no report, or does not say how its predictions were made, or they were made
            by another protocol than the one of that name.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(report, dict) or not set(report) >= NEEDED:
        raise ResultsError(f"{path}: expected what build_report returns, with {', '.join(sorted(NEEDED))}")
    run = report["run"]
    if not set(run) >= NEEDED_OF_RUN:
        missing = ", ".join(sorted(NEEDED_OF_RUN - set(run)))
        raise ResultsError(f"{path}: its run does not say {missing}: a figure without that is worth nothing")
    check_settings(path, run)
    # Where somebody's files are is nobody's business.
    run = {key: value for key, value in run.items() if key != "images"}
    if "names" in run:
        run["names"] = re.split(r"[\\/]", run["names"])[-1]
    name = f"widerface-{run['model']}-{run['protocol']}-{run['engine']}-{report['pictures']}.json"
    target = root / STORED / re.sub(r"[^\w.-]", "_", name)
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in {**report, "run": run}.items() if key != "events"}
    target.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


def table_of_results(results: Sequence[Mapping[str, Any]]) -> str:
    """Average precision of every result."""
    lines = [
        "| protocol | weights | engine | pictures | easy | medium | hard |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for result in results:
        run = result["run"]
        figures = " | ".join(f"{result['ap'][subset]:.2f}" for subset in SUBSETS)
        lines.append(
            f"| `{run['protocol']}` | {run['model']} | {run['engine']} | {_pictures(result)} | {figures} |"
        )
    return "\n".join(lines)


def _pictures(result: Mapping[str, Any]) -> str:
    """How many pictures, and of which list if not all of the set."""
    names = result["run"].get("names")
    return f"{result['pictures']:,}" if names is None else f"{result['pictures']:,} (`{names}`)"


def chosen(results: Sequence[Mapping[str, Any]], protocols: Sequence[str]) -> list[Mapping[str, Any]]:
    """The results of these protocols by the engine `native` on the most pictures."""
    most = max((result["pictures"] for result in results), default=0)
    return [
        result
        for result in results
        if result["pictures"] == most
        and result["run"]["engine"] == "native"
        and result["run"]["protocol"] in protocols
    ]


def short_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Average precision of each protocol, once."""
    return table_of_results(chosen(results, list(PROTOCOLS)))


def tables_of_heights(results: Sequence[Mapping[str, Any]]) -> str:
    """Recall and average precision by height of the face, of the protocols that differ most."""
    parts = []
    for result in chosen(results, HEIGHTS_OF):
        run = result["run"]
        title = f"`{run['protocol']}`, {run['model']}, {run['engine']}, {result['pictures']:,} pictures"
        parts.append(f"**{title}**\n\n{heights_to_table(result)}")
    return "\n\n".join(parts)


#: What is where.
TABLES = {
    "README.md": {"results": short_table},
    "docs/accuracy.md": {
        "results": table_of_results,
        "heights": tables_of_heights,
    },
}


def filled(text: str, name: str, table: str) -> str:
    """The text with another table between its comments.

    Raises:
        ResultsError: The comments are not there, each once and in order.
    """
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end or begin in rest or end in after:
        raise ResultsError(f"expected once {begin!r} and after it {end!r}")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def pages(root: Path = ROOT) -> dict[Path, tuple[str, str]]:
    """Every page with tables: as it is and as it should be.

    Raises:
        ResultsError: A page lacks the place for a table.
    """
    results = stored(root)
    found = {}
    for file in TABLES:
        text = (root / file).read_text(encoding="utf-8")
        found[root / file] = text, _with_tables(file, text, results)
    return found


def _with_tables(file: str, text: str, results: Sequence[Mapping[str, Any]]) -> str:
    try:
        for name, make in TABLES[file].items():
            text = filled(text, name, make(results))
    except ResultsError as error:
        raise ResultsError(f"{file}: {error}") from None
    return text


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--add", nargs="+", type=Path, default=[], metavar="FILE", help="store these results")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 where tables are old"
    )
    parsed = parser.parse_args(argv)
    try:
        for path in parsed.add:
            print(f"stored {add(path, root)}")
        old = {path: wanted for path, (text, wanted) in pages(root).items() if text != wanted}
    except ResultsError as error:
        print(f"results: {error}", file=sys.stderr)
        return 2
    for path, wanted in old.items():
        if parsed.check:
            print(
                f"results: {path} is not what docs/results says: run python -m benchmarks.results",
                file=sys.stderr,
            )
        else:
            path.write_text(wanted, encoding="utf-8")
            print(f"wrote {path}")
    return 1 if parsed.check and old else 0


if __name__ == "__main__":
    sys.exit(main())
