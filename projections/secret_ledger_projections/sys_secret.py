"""`sys_secret`: the current view. One row for each secret, without a copy of any ciphertext."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text

from secret_ledger.model.events import Event, EventType
from secret_ledger.model.metadata import parse_metadata
from secret_ledger.model.versions import state_of

__all__ = ["SysSecret"]

# As `store/*/sql/0003_projections.sql` makes the table. The view `sys_secret` shows its rows of
# the generation in use.
_CURRENT: Final = Table(
    "secret_current",
    MetaData(),
    Column("generation", Integer, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("key_fingerprint", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", Text),
    Column("updated_at", BigInteger, nullable=False),
    Column("updated_by", Text),
)


class SysSecret:
    """The current state of every secret: its position in the log, its key, its times.

    `created_*` are of the first event of the secret's stream, `updated_*` of the newest event that
    is no re-encryption. Times are microseconds since 1970 in UTC.
    """

    name: Final = "sys_secret"
    table: Final = _CURRENT
    first_values: Final = ("created_at", "created_by")

    def fold(self, row: Mapping[str, Any] | None, event: Event) -> Mapping[str, Any]:
        """The row with `event` as the newest event of the secret."""
        metadata = parse_metadata(event.metadata)
        updated_at = event.recorded_at
        if event.event_type == EventType.REKEYED:
            # A re-encryption repeats the actor of its version, and states that version's time.
            at = metadata.ledger.get("at")
            if isinstance(at, int) and not isinstance(at, bool):
                updated_at = at
        return {
            "version": event.version,
            "position": event.position,
            "state": state_of(event, metadata),
            "key_id": event.key_id,
            "key_fingerprint": event.key_fingerprint,
            "created_at": row["created_at"] if row else event.recorded_at,
            "created_by": row["created_by"] if row else metadata.actor,
            "updated_at": updated_at,
            "updated_by": metadata.actor,
        }
