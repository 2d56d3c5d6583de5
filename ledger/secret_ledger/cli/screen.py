"""The table of `nodes --watch` on a terminal: nodes that need attention stand first.

Each table is drawn over the last, so the terminal never scrolls. If the terminal is too low, the
table leaves out refused boots first, then nodes that are gone, then live nodes without a remark.
It counts the nodes that it leaves out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from secret_ledger.cli.output import SHORT, visible
from secret_ledger.cli.rollout import Reach, Rollout

if TYPE_CHECKING:
    from secret_ledger.nodes.registry import NodeInfo

__all__ = ["Screen", "drawn", "screen"]

_COLUMNS: Final = ("state", "node", "pid", "key", "pending", "position", "heard", "remark")
_NUMBERS: Final = ("pid", "position", "heard")
_SHORTENED: Final = ("key", "pending", "remark")
"""Columns that are cut if they lack room. A number that is cut would read as another number."""
_SPARED: Final = ("pid", "position")
"""Columns that are left out if the terminal has fewer than NARROW characters in a line."""
NARROW: Final = 100
NAME: Final = 26
"""Characters of a node's name, at most."""
_FRAME: Final = 5
"""Lines kept free: for the table's head and rule, the count of nodes left out, and the end."""


@contextmanager
def screen() -> Iterator[Screen | None]:
    """Yield a view on this terminal, or None if the terminal can't move its cursor."""
    console = Console(highlight=False)
    if console.is_dumb_terminal:
        yield None
        return
    with Live(console=console, auto_refresh=False) as live:
        yield Screen(live)


class Screen:
    """One table, kept up to date."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._seen: Rollout | None = None

    def show(self, seen: Rollout) -> None:
        self._seen = seen
        self._draw([])

    def out_of_reach(self, why: str) -> None:
        old = f"; below is the state of {self._seen.at:%H:%M:%S} UTC" if self._seen else ""
        self._draw([_line(f"{why}; still trying{old}", "bold red")])

    def _draw(self, top: list[Text]) -> None:
        parts: list[RenderableType] = list(top)
        if self._seen is not None:
            width, height = self._live.console.size
            parts += drawn(self._seen, width, height - len(top))
        self._live.update(Group(*parts), refresh=True)


def drawn(seen: Rollout, width: int, height: int) -> list[RenderableType]:
    """Make the lines and the table that fit a terminal of `width` characters and `height` lines."""
    states = Counter(node.state for node in seen.nodes)
    totals = ", ".join(f"{states[state]} {state}" for state in ("live", "gone", "refused"))
    mark = "" if seen.verified else " (unverified)"
    lines = [
        _line(f"{seen.at:%H:%M:%S} UTC, ledger {seen.ledger_id[:8]}…{mark}: {totals}", "dim"),
        *(_reach(key) for key in seen.keys),
    ]
    if len(seen.keys) > 2:
        lines.append(_line("nodes hold different pending keys: agree on one key", "yellow"))
    ranked = sorted(seen.nodes, key=lambda node: _rank(node, seen.keys))
    room = max(1, height - _FRAME - len(lines))
    left_out = len(ranked) - room
    end = [_line(f"and {left_out} more: secret-ledger nodes", "dim")] if left_out > 0 else []
    return [*lines, _table(ranked[:room], seen.keys, width), *end]


def _reach(key: Reach) -> Text:
    what = f"{key.readers} of {key.live} live nodes can read {key.key_id}"
    text = f"{key.state:<8}{what} ({key.key_fingerprint.hex()[:SHORT]}…)"
    if key.missing:
        fenced = key.state == "active"
        names = ", ".join(key.missing)
        return _line(
            f"{text}; {'fenced' if fenced else 'not yet'}: {names}", "red" if fenced else "yellow"
        )
    if key.state == "pending" and key.live:
        text += "; next: secret-ledger keys rotate"
    return _line(text, "green")


def _rank(node: NodeInfo, keys: Sequence[Reach]) -> tuple[int, bool, str, int]:
    """Live nodes come first. Within a state, nodes with a remark come first."""
    states = ("live", "gone", "refused")
    return states.index(node.state), not _remark(node, keys), node.node, node.pid


def _remark(node: NodeInfo, keys: Sequence[Reach]) -> str:
    if node.state == "refused":
        return f"{node.refusals:,} x {node.reason}"
    if node.state == "gone":
        return ""
    active, *pending = keys
    said: list[str] = [node.proof] if node.proof in ("unproven", "stale") else []
    said += [node.reason] if node.reason else []
    if node.differs:
        follows = node.reads(active.key_fingerprint)
        said.append("about to follow" if follows else f"lacks {active.key_id}")
    said += [f"lacks {key.key_id}" for key in pending if not node.reads(key.key_fingerprint)]
    return ", ".join(said)


def _table(nodes: Sequence[NodeInfo], keys: Sequence[Reach], width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    columns = [name for name in _COLUMNS if width >= NARROW or name not in _SPARED]
    for column in columns:
        table.add_column(
            column,
            no_wrap=column not in _SHORTENED,
            justify="right" if column in _NUMBERS else "left",
        )
    for node in nodes:
        remark = _remark(node, keys)
        cells = {
            "state": "unready" if node.state == "live" and node.reason else node.state,
            "node": _middle_out(node.node),
            "pid": str(node.pid),
            "key": node.key_id,
            "pending": node.pending_id or "",
            "position": f"{node.position:,}" if node.state != "refused" else "",
            "heard": _age(node.age),
            "remark": remark,
        }
        style = "dim" if node.state == "gone" else "yellow" if remark else ""
        table.add_row(*(_line(cells[column]) for column in columns), style=style)
    return table


def _middle_out(name: str) -> str:
    """Keeps both ends of a long name: both matter in `checkout-7d9c5bd7f4-x2x8p`."""
    if len(name) <= NAME:
        return name
    half = (NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _line(text: str, style: str = "") -> Text:
    return Text(visible(text), style=style, no_wrap=True, overflow="ellipsis")
