"""Tables of `benchmarks.engines`, on the console while it measures and as Markdown at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import runtimes, turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: What the project promises: times the fastest run time by size of the picture, times the fastest package,
#: bytes over the loaded state, seconds of a cold start.
NETWORK = {(480, 640): 1.9, (1080, 1920): 2.0, (2160, 4096): 2.0}
DETECT = 2.1
MEMORY_SIZE, MEMORY = (2160, 4096), 100e6
COLD = 0.4
TITLES = {"network": "Network", "detect": "Detection, array to faces"}


class Report:
    """Prints what was measured, keeps it for JSON and Markdown, and looks at the promises.

    Args:
        ours: The contestant that the others are compared with.
    """

    def __init__(self, ours: str) -> None:
        self.ours = ours
        self.record: dict[str, Any] = {"times": [], "suspicions": []}
        self._markdown: list[str] = []
        self._promises: list[tuple[bool, str]] = []

    def line(self, text: str = "") -> None:
        """Print a line and keep it."""
        print(text, flush=True)
        self._markdown.append(text)

    def head(self, quiet: float) -> None:
        """The machine, and whether it has something else to do."""
        machine = self.record["machine"]
        self.line(
            f"{machine['cpu']}, {machine['processors']} processors, {machine['system']}, "
            f"Python {machine['python']}"
        )
        self.line(", ".join(f"{name} {found}" for name, found in self.record["versions"].items() if found))
        load = machine["load_before"]
        if load is not None and load > quiet:
            self.line(f"THE MACHINE IS NOT QUIET: its load is {load:.2f}. Of one thread the CPU time may do.")
        self.line(
            "All in float32. The others get a float32 picture that is ready, ours get uint8 and convert it."
        )

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table that reads well on the console and is Markdown."""
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

        def cells(row: Sequence[str]) -> str:
            first, *rest = (
                text.ljust(width) if column == 0 else text.rjust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            )
            return f"| {' | '.join((first, *rest))} |"

        self.line()
        self.line(f"**{title}**")
        self.line()
        self.line(cells(header))
        self.line(
            "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
        )
        for row in rows:
            self.line(cells(row))
        self.line()

    def times(self, part: str, size_hw: tuple[int, int], threads: int, found: dict[str, Any]) -> None:
        """A table of times, the ratios to ours, and what looks suspicious."""
        entry = {"part": part, "size_hw": size_hw, "threads": threads, **found}
        self.record["times"].append(entry)
        label = f"{TITLES[part]}, {_named(size_hw)}, {_threads(threads)}"
        if "failed" in found:
            self.line(f"{label}: FAILED: {found['failed']}")
            self._promises.append((False, f"{label}: it failed"))
            return
        measured = {name: row for name, row in found["results"].items() if "failed" not in row}
        ours = measured.get(self.ours)
        answer = ("error", "off by") if part == "network" else ("same_faces", "same faces")
        rows, notes = [], []
        for name, row in sorted(measured.items(), key=lambda item: item[1]["median"]):
            if ours is not None:
                row["times_ours"] = turns.ratio(row, ours)
            suspicion = turns.suspicion(row, threads)
            if suspicion:
                notes.append(f"{name}: {suspicion}")
            times = row.get("times_ours")
            rows.append(
                (
                    name,
                    _milliseconds(row["median"]),
                    _milliseconds(row["min"]),
                    f"{row['spread']:.1%}",
                    f"{times['median']:.2f} ({times['min']:.2f} to {times['max']:.2f})" if times else "",
                    _milliseconds(row["cpu"]),
                    f"{row['processors']:.2f}",
                    f"{row[answer[0]]:.0e}" if part == "network" else f"{row[answer[0]]:.1%}",
                )
            )
        header = ("", "ms, median", "least", "spread", "times ours", "CPU ms", "processors", answer[1])
        self.table(label, header, rows)
        for name, row in found["results"].items():
            if "failed" in row:
                self.line(f"{name} has no times: {row['failed']}")
                self.line()
        if notes:
            self.line(f"Suspicious: {'; '.join(notes)}.")
            self.line()
        self.record["suspicions"] += [f"{label}: {note}" for note in notes]
        if ours is None:
            self._promises.append((False, f"{label}: no times of {self.ours}"))
            return
        others = [name for name in measured if not name.startswith(runtimes.OURS)]
        if others:
            fastest = min(others, key=lambda name: measured[name]["median"])
            self._compare(entry, label, fastest, measured[fastest]["times_ours"]["median"])
        if part == "network":
            self._floor(size_hw, threads, label, ours, found["multiplications"])

    def _compare(self, entry: Mapping[str, Any], label: str, fastest: str, times: float) -> None:
        network = entry["part"] == "network"
        promised = NETWORK.get(entry["size_hw"]) if network else DETECT
        # The network was promised on one and on two threads, the whole call on however many.
        if promised is None or (network and entry["threads"] > 2):
            return
        self._promises.append(
            (times >= promised, f"{label}: {times:.2f} times {fastest}, promised {promised:g}")
        )

    def _floor(
        self, size_hw: tuple[int, int], threads: int, label: str, ours: Mapping[str, Any], macs: int
    ) -> None:
        rate = self.record["peak"].get("macs_per_second")
        if rate is None or threads != 1:
            return
        floor = macs / rate
        self.line(
            f"Direct convolution cannot take less than {floor * 1e3:.2f} ms here: {macs / 1e9:.3f}e9 "
            f"multiply-adds at {rate / 1e9:.1f}e9 a second of one core ({self.record['peak']['simd']}). "
            f"{self.ours}: {ours['median'] / floor:.2f} of that."
        )
        self.line()
        if size_hw in NETWORK:
            self._promises.append(
                (
                    ours["median"] < floor,
                    f"{label}: {ours['median'] / floor:.2f} of the floor, promised less than 1",
                )
            )

    def memory(self, size_hw: tuple[int, int], threads: int, results: dict[str, Any]) -> None:
        """A table of the peak memory over the loaded state."""
        self.record["memory"] = {"size_hw": size_hw, "threads": threads, "results": results}
        rows = [
            (
                name,
                "network" if name in runtimes.OPPONENTS else "detection",
                f"{row['loaded'] / 1e6:,.0f}",
                f"{row['growth'] / 1e6:,.1f}",
            )
            for name, row in sorted(results.items(), key=lambda item: item[1].get("growth", 0))
            if "failed" not in row
        ]
        label = f"Peak memory, {_named(size_hw)}, {_threads(threads)}"
        self.table(label, ("", "of", "MB, loaded", "grows by"), rows)
        for name, row in results.items():
            if "failed" in row:
                self.line(f"{name} has no number: {row['failed']}")
                self.line()
        growth = results.get(self.ours, {}).get("growth")
        if tuple(size_hw) == MEMORY_SIZE:
            self._promises.append(
                (False, f"{label}: not measured")
                if growth is None
                else (
                    growth <= MEMORY,
                    f"{label}: {growth / 1e6:.1f} MB, promised at most {MEMORY / 1e6:.0f}",
                )
            )

    def cold(self, results: dict[str, Any], runs: int) -> None:
        """A table of the cold starts: what they took, and what of it was spent on what."""
        self.record["cold"] = {"runs": runs, "results": results}
        packages = sorted(
            {part for row in results.values() for part in row.get("min", {})} - set(_COLD_PARTS)
        )
        parts = [*_COLD_PARTS, *packages]
        rows = [
            (
                name,
                *(
                    f"{row['min'][part] * 1e3:.0f} / {row['median'][part] * 1e3:.0f}"
                    if part in row["min"]
                    else ""
                    for part in parts
                ),
            )
            for name, row in results.items()
            if "failed" not in row
        ]
        label = "Cold start: import and first detection of 640x480 in a fresh process"
        self.table(
            f"{label}, ms, least / median of {runs}",
            ("", *_COLD_PARTS.values(), *(f"of it {package}" for package in packages)),
            rows,
        )
        for name, row in results.items():
            if "failed" in row:
                self.line(f"{name} has no number: {row['failed']}")
                self.line()
        ours = results.get(self.ours, {}).get("median")
        self._promises.append(
            (False, f"{label}: not measured")
            if ours is None
            else (ours["total"] <= COLD, f"{label}: {ours['total']:.2f} s, promised at most {COLD:g}")
        )

    def promises(self) -> None:
        """What was promised, and whether it was seen."""
        self.record["promises"] = [{"met": met, "what": what} for met, what in self._promises]
        for met, what in self._promises:
            print(f"{'met   ' if met else 'MISSED'} {what}")
            self._markdown.append(f"- {'met' if met else '**missed**'}: {what}")
        if self.record["suspicions"]:
            self.line()
            self.line(
                f"{len(self.record['suspicions'])} of the times are suspicious: the machine had something "
                "else to do, or other threads worked than agreed. Neither met nor missed counts."
            )

    def markdown(self) -> str:
        """Everything that was printed."""
        return "\n".join(self._markdown) + "\n"


_COLD_PARTS = {"total": "total", "import": "import", "build": "build", "detect": "detect"}


def _named(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"


def _threads(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"
