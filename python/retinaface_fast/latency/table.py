"""A table of strings, for the terminal and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Table"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of strings.

    Attributes:
        title: What it shows, and the unit.
        header: Headings; the first is that of the names and empty. Lines are told apart by a line feed.
        rows: The cells.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_markdown(self) -> str:
        """Return it as Markdown that reads well as plain text, too."""
        lines = [tuple(cell.replace("\n", ", ") for cell in row) for row in (self.header, *self.rows)]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
        out = [f"**{self.title}**", ""]
        for number, line in enumerate(lines):
            cells = (
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            out.append(f"| {' | '.join(cells)} |")
            if number == 0:
                rule = (
                    "-" * (width + 1) + ("-" if column == 0 else ":") for column, width in enumerate(widths)
                )
                out.append(f"|{'|'.join(rule)}|")
        return "\n".join(out)

    def to_text(self) -> str:
        """Return it for a terminal: columns side by side, headings of several lines."""
        headings = [heading.split("\n") for heading in self.header]
        depth = max(map(len, headings))
        lines = [
            tuple(heading[line] if line < len(heading) else "" for heading in headings)
            for line in range(depth)
        ]
        widths = [max(map(len, column)) for column in zip(*lines, *self.rows, strict=True)]

        def _line(cells: tuple[str, ...]) -> str:
            return "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ).rstrip()

        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        return "\n".join([self.title, *map(_line, lines), rule, *map(_line, self.rows)])
