"""The result as a table, as JSON, and as a plot."""

import json
import platform
import sys
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path


@dataclass(frozen=True)
class Line:
    """One ratio: pounce's *value* to that of *peer*, and what was *wanted*.

    *at_most* says which way. Rates are those of a second of CPU time, which other programs on the
    machine disturb less than those by the clock, whose ratio is *wall*.
    """

    title: str
    peer: str
    unit: str
    value: float
    other: float
    wanted: float | None
    at_most: bool = False
    wall: float | None = None

    @property
    def ratio(self) -> float:
        return self.value / self.other

    @property
    def met(self) -> bool:
        if self.wanted is None:
            return True
        return self.ratio <= self.wanted if self.at_most else self.ratio >= self.wanted


def table(lines: list[Line], notes: list[str]) -> str:
    python = f"Python {platform.python_version()}{sys.abiflags}"
    rows = [(python, "pounce", "", "peer", "ratio", "by the clock", "wanted", "")]
    for line in lines:
        sign = "<=" if line.at_most else ">="
        rows.append(
            (
                line.title,
                f"{line.value:,.0f} {line.unit}",
                line.peer,
                f"{line.other:,.0f}",
                f"{line.ratio:.2f}",
                f"{line.wall:.2f}" if line.wall else "",
                f"{sign} {line.wanted:.2f}" if line.wanted else "",
                "" if line.met else "missed",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    told = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join([*told, *notes])


def write_json(lines: list[Line], notes: list[str], path: Path) -> None:
    machine = {"python": sys.version, "system": platform.platform()}
    results = [{**asdict(line), "ratio": line.ratio, "met": line.met} for line in lines]
    result = {"machine": machine, "results": results, "notes": notes}
    path.write_text(json.dumps(result, indent=2) + "\n")


def write_plot(lines: list[Line], path: Path) -> None:
    """Horizontal bars, one a ratio; a tick marks what was wanted."""
    left, height, unit = 400, 26, 110
    parts = []
    for index, line in enumerate(lines):
        y = 30 + index * height
        width = min(line.ratio, 6) * unit
        colour = "#3b7d4f" if line.met else "#b5483a"
        label = escape(f"{line.title}: {line.peer}")
        parts.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{label}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{width:.0f}" height="18" fill="{colour}"/>')
        parts.append(f'<text x="{left + width + 6:.0f}" y="{y + 14}">{line.ratio:.2f}</text>')
        if line.wanted:
            x = left + line.wanted * unit
            parts.append(f'<path d="M{x:.0f} {y - 3}v24" stroke="#222" stroke-width="2"/>')
    total = 50 + len(lines) * height
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="1140" height="{total}"'
        ' font-family="sans-serif" font-size="13">\n'
        '<rect width="100%" height="100%" fill="white"/>\n'
        f'<text x="{left}" y="18">pounce in multiples of its peers; ticks: wanted</text>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
