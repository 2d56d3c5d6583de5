"""The read side: tables that are folds of the log, always rebuildable, never the truth.

`sys_secret` is kept by default. A projection of your own implements `Projection` (a name,
a table, a pure fold); keep it in the append's transaction with `Inline`, or behind it with
`catch_up`. `check` holds a table against the log, `rebuild` mends what differs.
"""

from projections.comparison import Difference, check
from projections.key_history import active_at, key_history
from projections.protocol import Projection
from projections.rebuilding import RebuildReport, rebuild
from projections.runner import Inline, catch_up, install, lag
from projections.sys_secret import SysSecret

__all__ = [
    "Difference",
    "Inline",
    "Projection",
    "RebuildReport",
    "SysSecret",
    "active_at",
    "catch_up",
    "check",
    "default",
    "install",
    "key_history",
    "lag",
    "rebuild",
]


def default() -> tuple[Inline, ...]:
    """The projections that `SecretLedger.open` keeps unless it is told otherwise."""
    return (Inline(SysSecret()),)
