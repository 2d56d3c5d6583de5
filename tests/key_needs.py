"""What each key of a ledger is needed for: as its rows say, and as opening it shows."""

from __future__ import annotations

from dataclasses import dataclass

from independent_fold import read_each
from ledgers import opened
from secret_ledger import Key, LedgerError


@dataclass(frozen=True)
class Rows:
    """What lies under which key, as the rows say it."""

    active: str
    heads: set[str]
    """Keys of the newest event of each secret in use."""
    in_use: set[str]
    """Keys of the events of the generation in use that hold something."""
    anywhere: set[str]
    """The same of all generations that are not purged."""
    half_purged: bool


async def rows_of(url: str) -> Rows:
    heads, events = await read_each(
        url,
        "SELECT generation, state FROM ledger_head",
        "SELECT generation, position, stream, event_type, key_id, sealed FROM secret_event"
        " ORDER BY generation, position",
    )
    states = dict(heads)
    (generation,) = (g for g, state in heads if state == "active")
    own = [e for e in events if e[0] == generation]
    activated = [e[1] for e in own if e[3] == "key.activated"]
    sealed = [e for e in events if e[5][:1] != b"\0"]
    newest = {e[2]: e[4] for e in own if e[2] != "$ledger"}
    # What a key was activated with lies under it, unless all was sealed again since.
    opened_at = max((e[1] for e in own if e[3] == "generation.opened"), default=0)
    at = max([*activated, opened_at])
    return Rows(
        active=next(e[4] for e in own if e[1] == at),
        heads=set(newest.values()),
        in_use={e[4] for e in sealed if e[0] == generation and e[2] != "$ledger"},
        anywhere={e[4] for e in sealed if states[e[0]] != "purged"},
        half_purged="purging" in states.values(),
    )


async def outcome(url: str, *keys: Key) -> type[LedgerError] | None:
    """How opening ends."""
    try:
        async with opened(url, *keys, create=False):
            return None
    except LedgerError as error:
        return type(error)
