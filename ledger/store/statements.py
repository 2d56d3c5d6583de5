"""The SQL that both databases understand, named; made once for each database.

`{s}` stands for the schema and its dot. All other names stand as they are, and are qualified
for PostgreSQL on the way to the server (`ledger.store.postgresql_names`). What is spelt
differently lies in the dialect modules. Reads that callers see resolve the generation in use
in their own statement and return its head row beside their rows, so that nothing is answered
from an old generation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from ledger.state import Head
from ledger.store.connection import Connection, Statement

__all__ = [
    "EVENT_COLUMNS",
    "HEAD_COLUMNS",
    "NODE_COLUMNS",
    "Statements",
    "advancing",
    "paged",
    "whole",
]

EVENT_COLUMNS: Final = (
    "generation, position, stream, version, event_type, key_id, key_fingerprint,"
    " recorded_at, metadata, prev_hash, sealed, event_hash"
)
HEAD_COLUMNS: Final = "generation, position, recorded_at, key_epoch, state"
ATTESTATION_COLUMNS: Final = (
    "generation, format, position, level, heads, event_hash, control_hash, head_keys,"
    " verified_at, release, key_id, key_fingerprint, mac"
)
NODE_COLUMNS: Final = (
    "node_id, node, host, pid, release, state, key_id, key_fingerprint, pending_id,"
    " pending_fingerprint, readable, position, reason, refusals, heartbeat, started_at, last_seen"
)


def _named(columns: str) -> str:
    return ", ".join(f":{column.strip()}" for column in columns.split(","))


_NODE_VALUES: Final = _named(NODE_COLUMNS)
_NODE_RENEWED: Final = ", ".join(
    f"{column} = excluded.{column}"
    for column in (
        "key_id", "key_fingerprint", "pending_id", "pending_fingerprint", "readable",
        "position", "reason", "heartbeat", "last_seen",
    )
)  # fmt: skip
DRAWN_NAMES: Final = tuple(f"p{n}" for n in range(50))
"""The parameters of `heads_at`, each a position: few enough, for a value may have a MiB."""
_DRAWN: Final = ", ".join(f"CAST(:{name} AS BIGINT)" for name in DRAWN_NAMES)
SMALL: Final = 16 * 1024
"""Sealed bytes up to here come with a page; larger ones are fetched row by row, so that
no page is larger than memory allows, whatever the values."""


def _of(alias: str, columns: str) -> str:
    return ", ".join(f"{alias}.{c.strip()}" for c in columns.split(","))


def paged(alias: str) -> str:
    """The columns of an event in a page: `sealed` is NULL where it is not small."""
    small = f"CASE WHEN length({alias}.sealed) <= {SMALL} THEN {alias}.sealed END AS sealed"
    return _of(alias, EVENT_COLUMNS).replace(f"{alias}.sealed", small)


_E: Final = _of("e", EVENT_COLUMNS)
_P: Final = paged("e")
# What a projection folds: all of an event but `sealed`, which says nothing without a key.
_F: Final = _of("e", EVENT_COLUMNS).replace(" e.sealed,", "")
_H: Final = _of("h", HEAD_COLUMNS)

# The newest event of a stream, the newest `secret.destroyed` at or above it, and the head.
_FIND: Final = f"""
SELECT {_H}, {_E},
       (SELECT max(d.version) FROM {{s}}secret_event AS d
        WHERE d.generation = h.generation AND d.stream = :stream
          AND d.event_type = 'secret.destroyed') AS destroyed
FROM {{s}}ledger_head AS h
LEFT JOIN {{s}}secret_event AS e
  ON e.generation = h.generation AND e.stream = :stream AND e.version = {{version}}
WHERE h.state IN ('active', 'moved')
"""
_LATEST_VERSION: Final = """(
    SELECT max(v.version) FROM {s}secret_event AS v
    WHERE v.generation = h.generation AND v.stream = :stream
)"""
_VERSION_AT: Final = """(
    SELECT v.version FROM {s}secret_event AS v
    WHERE v.generation = h.generation AND v.stream = :stream AND v.recorded_at <= :at
    ORDER BY v.version DESC LIMIT 1
)"""

# Streams in order of their bytes, found by skipping through the index one stream at a
# time: the cost is that of the streams, not of their history. How each one's newest event is
# looked up differs, because it is what holds the two planners to that.
_HEADS: Final = """
WITH RECURSIVE names (stream, n) AS (
    SELECT (SELECT min(f.stream) FROM {s}secret_event AS f
            WHERE f.generation = :generation AND f.stream {after} CAST(:after AS TEXT)), 1
    UNION ALL
    SELECT (SELECT min(f.stream) FROM {s}secret_event AS f
            WHERE f.generation = :generation AND f.stream > names.stream), n + 1
    FROM names WHERE names.stream IS NOT NULL AND n < :limit
)
SELECT {what}
FROM names {newest}
ORDER BY e.stream
"""
_NEWEST: Final = """
CROSS JOIN {s}secret_event AS e
WHERE e.generation = :generation AND e.stream = names.stream
 AND e.version = (SELECT max(v.version) FROM {s}secret_event AS v
                  WHERE v.generation = :generation AND v.stream = names.stream)
"""
# Of streams that are found by an event of theirs.
_HEADS_AT: Final = f"""
SELECT {_P}, names.position
FROM (
    SELECT f.position, f.stream FROM {{s}}secret_event AS f
    WHERE f.generation = :generation AND f.position IN ({_DRAWN})
) AS names {{newest}}
"""
_HEAD_KEYS: Final = "e.stream, e.key_id, e.key_fingerprint"

# With each event what it follows: the version before it in its stream, and whether a
# later `secret.destroyed` ends it. So a scan of any length keeps no state by stream.
_CHECK_PAGE: Final = f"""
SELECT {_P}, p.position AS previous_position, p.event_hash AS previous_hash,
       (SELECT max(d.version) FROM {{s}}secret_event AS d
        WHERE d.generation = e.generation AND d.stream = e.stream
          AND d.event_type = 'secret.destroyed') AS destroyed
FROM {{s}}secret_event AS e
LEFT JOIN {{s}}secret_event AS p
  ON p.generation = e.generation AND p.stream = e.stream
 AND p.version = CASE WHEN e.version > 1 THEN e.version - 1 END
WHERE e.generation = :generation AND e.position > :after AND e.position <= :bound
ORDER BY e.position LIMIT :limit
"""


def whole(
    connection: Connection, statements: Statements, rows: Iterable[Any]
) -> Iterator[Sequence[Any]]:
    """The rows of a page with the large `sealed` fetched as they are reached."""
    for row in rows:
        if type(row[10]) is bytes:
            yield row
            continue
        place = {"generation": row[0], "position": row[1]}
        # Not `scalar_one`: an attacker's rows may share a place, or hold nothing.
        sealed = connection.execute(statements.sealed_at, place).scalars().first()
        yield (*row[:10], sealed if isinstance(sealed, bytes) else b"", *row[11:])


def advancing(before: Head, after: Head) -> dict[str, int]:
    """The parameters of `Statements.advance_head`."""
    return {
        "generation": before.generation,
        "before": before.position,
        "position": after.position,
        "recorded_at": after.recorded_at,
        "key_epoch": after.key_epoch,
    }


class Statements:
    """The named statements, each with its parameters written `:name`."""

    def __init__(
        self,
        schema_prefix: str,
        among: str,
        *,
        newest: str = _NEWEST,
        generation: str = ":generation",
    ) -> None:
        """`among`: what stands behind a column that is one of the texts of `:names`.
        `newest`: how the newest event `e` of each of `names` is looked up. `generation`: what
        stands for `:generation` where events are looked for."""

        def sql(template: str, **parts: str) -> Statement:
            filled = {name: part.replace("{s}", schema_prefix) for name, part in parts.items()}
            text = template.format(s=schema_prefix, **filled)
            if "secret_event" in text:
                text = text.replace("= :generation", f"= {generation}")
            return Statement(text)

        self.prefix: Final = schema_prefix
        self.among: Final = among
        self.meta: Final = sql("SELECT ledger_id, format, schema_version FROM {s}ledger_meta")
        self.insert_meta: Final = sql(
            "INSERT INTO {s}ledger_meta (only_row, ledger_id, format, schema_version)"
            " VALUES (1, :ledger_id, :format, :schema_version)"
        )
        self.lock_meta: Final = sql("UPDATE {s}ledger_meta SET only_row = only_row")
        self.set_schema_version: Final = sql(
            "UPDATE {s}ledger_meta SET schema_version = :schema_version"
        )

        self.heads: Final = sql(f"SELECT {HEAD_COLUMNS} FROM {{s}}ledger_head ORDER BY generation")
        self.head_in_use: Final = sql(
            f"SELECT {HEAD_COLUMNS} FROM {{s}}ledger_head WHERE state IN ('active', 'moved')"
        )
        self.head_and_time_at: Final = sql(
            f"SELECT {_H}, (SELECT max(e.recorded_at) FROM {{s}}secret_event AS e"
            "  WHERE e.generation = h.generation AND e.position = :position)"
            " FROM {s}ledger_head AS h WHERE h.state IN ('active', 'moved')"
        )
        # Read in order of position, however old the planner's numbers are: the log's end alone.
        self.changes: Final = sql(
            f"SELECT {_H}, e.stream, e.position FROM {{s}}ledger_head AS h LEFT JOIN ("
            "  SELECT c.generation, c.stream, c.position FROM {s}secret_event AS c"
            "  WHERE c.generation = (SELECT u.generation FROM {s}ledger_head AS u"
            "   WHERE u.state IN ('active', 'moved'))"
            "  AND c.position > :after ORDER BY c.position LIMIT :limit"
            " ) AS e ON e.generation = h.generation"
            " WHERE h.state IN ('active', 'moved') ORDER BY e.position"
        )
        self.insert_head: Final = sql(
            f"INSERT INTO {{s}}ledger_head ({HEAD_COLUMNS})"
            " VALUES (:generation, :position, :recorded_at, :key_epoch, :state)"
        )
        self.advance_head: Final = sql(
            "UPDATE {s}ledger_head SET position = :position, recorded_at = :recorded_at,"
            " key_epoch = :key_epoch"
            " WHERE generation = :generation AND position = :before AND state = 'active'"
        )
        self.replace_head: Final = sql(
            "UPDATE {s}ledger_head SET position = :position, recorded_at = :recorded_at,"
            " key_epoch = :key_epoch, state = :state"
            " WHERE generation = :generation AND position = :before AND state = :before_state"
            " AND key_epoch = :before_epoch"
        )

        self.keys: Final = sql("SELECT key_id, key_fingerprint FROM {s}ledger_key ORDER BY key_id")
        self.insert_key: Final = sql(
            "INSERT INTO {s}ledger_key (key_id, key_fingerprint) VALUES (:key_id, :key_fingerprint)"
        )

        self.moves: Final = sql(
            "SELECT generation, move_id, place FROM {s}ledger_move ORDER BY generation"
        )
        self.insert_move: Final = sql(
            "INSERT INTO {s}ledger_move (generation, move_id, place)"
            " VALUES (:generation, :move_id, :place)"
        )

        self.attestation: Final = sql(
            f"SELECT {ATTESTATION_COLUMNS} FROM {{s}}ledger_attestation"
            " WHERE generation = :generation"
        )
        self.forget_attestations: Final = sql("DELETE FROM {s}ledger_attestation")
        self.insert_attestation: Final = sql(
            f"INSERT INTO {{s}}ledger_attestation ({ATTESTATION_COLUMNS})"
            f" VALUES ({_named(ATTESTATION_COLUMNS)})"
        )

        self.latest: Final = sql(_FIND, version=_LATEST_VERSION)
        self.version: Final = sql(_FIND, version=":version")
        self.at: Final = sql(_FIND, version=_VERSION_AT)
        self.event_at_position: Final = sql(
            f"SELECT {EVENT_COLUMNS} FROM {{s}}secret_event"
            " WHERE generation = :generation AND position = :position"
        )
        self.sealed_at: Final = sql(
            "SELECT sealed FROM {s}secret_event"
            " WHERE generation = :generation AND position = :position"
        )
        self.event_of_version: Final = sql(
            f"SELECT {EVENT_COLUMNS} FROM {{s}}secret_event"
            " WHERE generation = :generation AND stream = CAST(:stream AS TEXT)"
            " AND version = :version"
        )
        self.first_under: Final = sql(
            f"SELECT {_E} FROM (SELECT {EVENT_COLUMNS} FROM {{s}}secret_event"
            " ORDER BY generation DESC, position DESC LIMIT 1000) AS e"
            " WHERE e.key_fingerprint = :key_fingerprint ORDER BY e.position LIMIT 1"
        )
        self.last_with_value: Final = sql(
            f"SELECT {EVENT_COLUMNS} FROM {{s}}secret_event"
            " WHERE generation = :generation AND stream = :stream AND version < :before"
            " AND event_type IN ('secret.written', 'secret.restored', 'secret.rekeyed')"
            " ORDER BY version DESC LIMIT 1"
        )
        self.stream_page: Final = sql(
            f"SELECT {_P} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND stream = CAST(:stream AS TEXT)"
            " AND version > :after"
            " ORDER BY version LIMIT :limit"
        )
        self.events_page: Final = sql(
            f"SELECT {_P} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND position > :after AND position <= :bound"
            " ORDER BY position LIMIT :limit"
        )
        self.fold_page: Final = sql(
            f"SELECT {_F} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND position > :after AND position <= :bound"
            " ORDER BY position LIMIT :limit"
        )
        # `position + 0`: or else PostgreSQL, while it has no statistics, goes by the positions
        # and walks the whole log for each page.
        self.by_stream_page: Final = sql(
            f"SELECT {_F} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND position + 0 <= :bound"
            " AND (stream, version) > (CAST(:stream AS TEXT), :version)"
            " ORDER BY stream, version LIMIT :limit"
        )
        self.streams_between: Final = sql(
            "SELECT stream FROM {s}secret_event"
            " WHERE generation = :generation AND position > :after AND position <= :bound"
        )
        self.begun_streams: Final = sql(
            f"SELECT stream FROM {{s}}secret_event WHERE generation = :generation"
            f" AND stream {among} AND version = 1 AND position + 0 <= :bound"
        )
        self.any_of_stream: Final = sql(
            "SELECT 1 FROM {s}secret_event WHERE generation = :generation"
            " AND stream = CAST(:stream AS TEXT) AND position <= :bound LIMIT 1"
        )
        self.heads_page_from: Final = sql(_HEADS, after=">=", what=_P, newest=newest)
        self.heads_page_after: Final = sql(_HEADS, after=">", what=_P, newest=newest)
        self.heads_at: Final = sql(_HEADS_AT, newest=newest)
        self.head_keys_from: Final = sql(_HEADS, after=">=", what=_HEAD_KEYS, newest=newest)
        self.head_keys_after: Final = sql(_HEADS, after=">", what=_HEAD_KEYS, newest=newest)
        # By the rows that there are: no head row says how many pages that takes.
        self.event_keys: Final = sql(
            "SELECT key_id, key_fingerprint, count(*),"
            " sum(CASE WHEN substr(sealed, 1, 1) = :purged THEN 1 ELSE 0 END), max(position),"
            " sum(length(sealed))"
            " FROM (SELECT key_id, key_fingerprint, position, sealed FROM {s}secret_event"
            "  WHERE generation = :generation AND position > :after"
            "  ORDER BY position LIMIT :limit) AS e GROUP BY key_id, key_fingerprint"
        )
        self.check_page: Final = sql(_CHECK_PAGE)
        self.destroyed_after: Final = sql(
            "SELECT max(version) FROM {s}secret_event WHERE generation = :generation"
            " AND stream = :stream AND event_type = 'secret.destroyed'"
        )
        self.count: Final = sql(
            "SELECT count(*), coalesce(min(position), 0), coalesce(max(position), 0)"
            " FROM {s}secret_event WHERE generation = :generation"
        )
        # Each by itself, so that neither database counts its way from one to the other.
        self.ends: Final = sql(
            "SELECT (SELECT min(position) FROM {s}secret_event WHERE generation = :generation),"
            " (SELECT max(position) FROM {s}secret_event WHERE generation = :generation)"
        )
        # Counted by way of the index that every read of a secret takes; and how many streams
        # are not whole.
        self.count_by_stream: Final = sql(
            "SELECT CAST(coalesce(sum(n), 0) AS BIGINT),"
            " coalesce(sum(CASE WHEN lowest <> 1 OR highest <> n THEN 1 ELSE 0 END), 0)"
            " FROM (SELECT count(*) AS n, min(version) AS lowest, max(version) AS highest"
            " FROM {s}secret_event WHERE generation = :generation GROUP BY stream) AS s"
        )
        self.broken_streams: Final = sql(
            "SELECT stream, count(*), min(version), max(version)"
            " FROM {s}secret_event WHERE generation = :generation GROUP BY stream"
            " HAVING min(version) <> 1 OR max(version) <> count(*) ORDER BY stream LIMIT :limit"
        )
        self.event_hashes: Final = sql(
            "SELECT position, event_hash FROM {s}secret_event WHERE generation = :generation"
            " AND position > :after ORDER BY position LIMIT :limit"
        )
        # Deletion from the end, for purging alone; the triggers hold it to that.
        self.delete_events: Final = sql(
            "DELETE FROM {s}secret_event WHERE generation = :generation AND position > :after"
        )
        self.generations_of_events: Final = sql(
            "SELECT generation, count(*), min(position), max(position)"
            " FROM {s}secret_event GROUP BY generation ORDER BY generation"
        )

        self.current_of_generation: Final = (
            f"FROM {schema_prefix}secret_current WHERE generation = :generation"
        )
        self.current_by_key: Final = sql(
            "SELECT key_fingerprint, count(*) {rows} GROUP BY key_fingerprint",
            rows=self.current_of_generation,
        )
        self.checkpoint: Final = sql(
            "SELECT position FROM {s}projection_checkpoint"
            " WHERE projection = :projection AND generation = :generation"
        )
        self.insert_checkpoint: Final = sql(
            "INSERT INTO {s}projection_checkpoint (projection, generation, position)"
            " VALUES (:projection, :generation, :position)"
            " ON CONFLICT (projection, generation) DO NOTHING"
        )
        self.lock_checkpoint: Final = sql(
            "UPDATE {s}projection_checkpoint SET position = position"
            " WHERE projection = :projection AND generation = :generation RETURNING position"
        )
        self.advance_checkpoint: Final = sql(
            "UPDATE {s}projection_checkpoint SET position = :position"
            " WHERE projection = :projection AND generation = :generation"
            " AND position = :before"
        )

        self.forget_checkpoint: Final = sql(
            "DELETE FROM {s}projection_checkpoint"
            " WHERE projection = :projection AND generation = :generation"
        )

        self.announce_node: Final = sql(
            f"INSERT INTO {{s}}ledger_node ({NODE_COLUMNS}) VALUES ({_NODE_VALUES})"
            f" ON CONFLICT (node_id) DO UPDATE SET {_NODE_RENEWED}"
        )
        self.refuse_node: Final = sql(
            f"INSERT INTO {{s}}ledger_node AS n ({NODE_COLUMNS}) VALUES ({_NODE_VALUES})"
            " ON CONFLICT (node, key_id, key_fingerprint, reason) WHERE state = 'refused'"
            " DO UPDATE SET refusals = n.refusals + 1, last_seen = excluded.last_seen,"
            " host = excluded.host, pid = excluded.pid, release = excluded.release"
        )
        self.trim_refused_nodes: Final = sql(
            "DELETE FROM {s}ledger_node WHERE node_id IN ("
            "SELECT node_id FROM {s}ledger_node WHERE state = 'refused'"
            " ORDER BY last_seen DESC LIMIT 1000000 OFFSET :most)"
        )
        self.forget_node: Final = sql(
            "DELETE FROM {s}ledger_node WHERE node_id = :node_id"
            " OR (state = 'live' AND last_seen < :old)"
        )
        self.differing_nodes: Final = sql(
            f"SELECT {NODE_COLUMNS} FROM {{s}}ledger_node WHERE state <> 'refused'"
            " AND key_fingerprint <> :active AND node_id <> :besides"
            " ORDER BY last_seen DESC LIMIT 100"
        )
        self.two_live_nodes: Final = sql(
            "SELECT node_id FROM {s}ledger_node WHERE state = 'live' AND node_id <> :besides"
            " AND last_seen + 3 * heartbeat >= :now LIMIT 2"
        )
        self.nodes: Final = sql(
            f"SELECT {NODE_COLUMNS} FROM {{s}}ledger_node ORDER BY state, node, started_at"
        )
