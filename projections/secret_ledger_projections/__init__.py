"""The read side: tables that are folds of the log, always rebuildable, never the truth.

`sys_secret` is kept by default. A projection of your own implements `Projection` (a name, a table,
a pure fold). Keep it in the append's transaction with `Inline`, or fold it later with `catch_up`.
`check` compares a table with the log, and `rebuild` mends the rows that differ.
"""

from secret_ledger_projections.comparison import Difference, check
from secret_ledger_projections.key_history import active_at, key_history
from secret_ledger_projections.protocol import Projection
from secret_ledger_projections.rebuilding import RebuildReport, rebuild
from secret_ledger_projections.runner import Inline, catch_up, install, lag
from secret_ledger_projections.sys_secret import SysSecret

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
