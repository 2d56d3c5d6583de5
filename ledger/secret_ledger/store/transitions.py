"""Changes a head row, only if the row is still as the caller knows it."""

from __future__ import annotations

from secret_ledger.model.rows import LogHead
from secret_ledger.store.connection import Connection
from secret_ledger.store.database import Database

__all__ = ["replace_head"]


def replace_head(
    connection: Connection, database: Database, before: LogHead, after: LogHead
) -> bool:
    """Change the head row from `before` to `after`, which locks it until the commit.

    Returns False if its position, state or epoch is no longer as in `before`.
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
