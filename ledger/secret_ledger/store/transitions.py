"""How a head row goes from one state to the next: as it was known, or not at all."""

from __future__ import annotations

from secret_ledger.model.rows import Head
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database

__all__ = ["replace_head"]


def replace_head(connection: Connection, database: Database, before: Head, after: Head) -> bool:
    """Make the head row `before`, which must be just so still, `after`; it is locked then.

    False where it is another by now.
    """
    done = connection.execute(
        database.statements.replace_head,
        {
            "generation": before.generation,
            "before": before.position,
            "before_state": before.state,
            "before_epoch": before.key_epoch,
            "position": after.position,
            "recorded_at": after.recorded_at,
            "key_epoch": after.key_epoch,
            "state": after.state,
        },
    )
    return done.rowcount == 1
