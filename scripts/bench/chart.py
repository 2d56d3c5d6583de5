"""The chart for the README: the ratio of our rate to the peer's, as an SVG that stands alone.

It shows ratios on a logarithmic scale, no times: a bar to the right of 1 is ahead, a bar to the
left is behind. The colours can be read on white and on black, because an image does not know its
background.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any, Final
from xml.sax.saxutils import escape

from peer import TUNED
from places import DATABASES
from turns import PEER

__all__ = ["draw"]

_WIDTH: Final = 820
_LEFT: Final = 200
_RIGHT: Final = 70
_TOP: Final = 62
_BAR: Final = 12
_ROW: Final = 2 * _BAR + 14
_FOOT: Final = 64

_TEXT: Final = "#6e7781"
_LINE: Final = "#8b949e"
_COLOURS: Final = {"sqlite": "#2f81f7", "postgresql": "#d9822b"}
_TIMES: Final = "\N{MULTIPLICATION SIGN}"
_NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@dataclass(frozen=True, slots=True)
class _Bar:
    """One scenario on one database."""

    database: str
    ratio: Mapping[str, float]
    tuned: float | None
    """Ratio to the peer at its best; None if that was not measured."""


def draw(results: Mapping[str, Any]) -> str:
    """Draw the chart as SVG. `results`: a run's results, as they are written to JSON."""
    rows = _rows(results["outcomes"])
    bars = [bar for row in rows.values() for bar in row]
    scale = _Scale.of(bars)
    height = _TOP + len(rows) * _ROW + _FOOT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' width="{_WIDTH}" height="{height}" font-family="-apple-system, Segoe UI, Helvetica,'
        f' Arial, sans-serif" font-size="12" fill="{_TEXT}" role="img">',
        "<title>Secret Ledger beside the eventsourcing library</title>",
        *_head(),
        *_grid(scale, height - _FOOT),
    ]
    for number, (name, row) in enumerate(rows.items()):
        y = _TOP + number * _ROW + 6
        lines.append(_text(_LEFT - 10, y + _BAR + 4, name, "end"))
        for bar in row:
            lines += _bar(bar, scale, y + DATABASES.index(bar.database) * (_BAR + 1))
    lines += [*_foot(results["machine"], height), "</svg>"]
    return "\n".join(lines) + "\n"


def _rows(records: Sequence[Mapping[str, Any]]) -> dict[str, list[_Bar]]:
    rows: dict[str, list[_Bar]] = {}
    for record in records:
        ratios = record["ratios"]
        if PEER in ratios:
            tuned = ratios[TUNED]["median"] if TUNED in ratios else None
            bar = _Bar(record["database"], ratios[PEER], tuned)
            rows.setdefault(record["name"], []).append(bar)
    return rows


@dataclass(frozen=True, slots=True)
class _Scale:
    """Exponents of ten at the left end and at the right end of the chart."""

    low: int
    high: int

    @classmethod
    def of(cls, bars: Sequence[_Bar]) -> _Scale:
        low = min([0.99, *(bar.ratio["low"] for bar in bars), *(b.tuned or 1 for b in bars)])
        high = max([1.01, *(bar.ratio["high"] for bar in bars)])
        return cls(floor(log10(low)), ceil(log10(high)))

    def x(self, ratio: float) -> float:
        part = (log10(ratio) - self.low) / (self.high - self.low)
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)


def _head() -> Iterator[str]:
    title = "Secret Ledger beside the eventsourcing library with its AES cipher"
    yield _text(16, 24, title, size=15)
    x = 16.0
    for database in DATABASES:
        yield _box(x, 36, 12, 12, _COLOURS[database])
        yield _text(x + 18, 46, _NAMES[database])
        x += 28 + 7 * len(_NAMES[database])
    yield _line(x, 42, x + 18, 42, 1.5)
    yield _text(x + 24, 46, "min to max")
    yield _diamond(x + 112, 42)
    yield _text(x + 122, 46, "beside that library tuned: its quicker cipher, database functions")


def _grid(scale: _Scale, bottom: float) -> Iterator[str]:
    for power in range(scale.low, scale.high + 1):
        x = scale.x(10.0**power)
        yield _line(x, _TOP, x, bottom, 1.6 if power == 0 else 0.4)
        label = "alike" if power == 0 else f"{10.0**power:g}{_TIMES}"
        yield _text(x, bottom + 16, label, "middle")


def _bar(bar: _Bar, scale: _Scale, y: float) -> Iterator[str]:
    one, end = scale.x(1), scale.x(bar.ratio["median"])
    low, high = scale.x(bar.ratio["low"]), scale.x(bar.ratio["high"])
    yield _box(min(one, end), y, max(abs(end - one), 1), _BAR, _COLOURS[bar.database])
    middle = y + _BAR / 2
    yield _line(low, middle, high, middle, 1.5)
    tuned = scale.x(bar.tuned) if bar.tuned else high
    if bar.tuned:
        yield _diamond(tuned, middle)
    yield _text(max(one, end, high, tuned) + 7, middle + 4, _times(bar.ratio["median"]))


def _foot(machine: Mapping[str, Any], height: float) -> Iterator[str]:
    measured = [f"{_NAMES[each]} {machine[each]}" for each in DATABASES if each in machine]
    versions = ", ".join(
        [
            f"{machine['cpus']} CPUs",
            f"Python {machine['python']}",
            *measured,
            f"eventsourcing {machine['eventsourcing']}",
        ]
    )
    yield _text(
        16, height - 26, "How many times its operations a second ours are; to the right: ahead."
    )
    text = f"Each measured in one run, in turns, flushed to disk alike. {versions}."
    yield _text(16, height - 10, text, size=11)


def _times(ratio: float) -> str:
    digits = 2 if ratio < 2 else 1 if ratio < 10 else 0
    return f"{ratio:.{digits}f}{_TIMES}"


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, width: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        f' stroke="{_LINE}" stroke-width="{width}"/>'
    )


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        f' rx="2" fill="{colour}"/>'
    )


def _diamond(x: float, y: float) -> str:
    return (
        f'<path d="M{x:.1f} {y - 5:.1f} l5 5 l-5 5 l-5 -5 z"'
        f' fill="#ffffff" stroke="{_TEXT}" stroke-width="1.5"/>'
    )
