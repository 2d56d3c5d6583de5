"""The named SQL statements that both databases understand; made once for each database.

`{s}` stands for the schema and its dot. All other names stand as they are;
`store.postgresql.names` qualifies them on the way to PostgreSQL. SQL that differs lies in the
dialect modules. A read that callers see resolves the generation in use in its own statement, and
returns its head row beside the rows. So no answer comes from an old generation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from secret_ledger.model.events import CONTROL_STREAM
from secret_ledger.model.rows import LogHead
from secret_ledger.store.bounds import (
    CONTROL_METADATA,
    MAX_GENERATIONS,
    MAX_KEYS,
    MAX_SEALED,
    SECRET_METADATA,
    Bounds,
)
from secret_ledger.store.connection import Connection, Statement

__all__ = [
    "EVENT_COLUMNS",
    "HEAD_COLUMNS",
    "NODE_COLUMNS",
    "Checkpoints",
    "Statements",
    "advancing",
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
    " pending_fingerprint, readable, position, reason, refusals, heartbeat, started_at, last_seen,"
    " proof"
)


def _each(columns: str) -> list[str]:
    return [column.strip() for column in columns.split(",")]


def _named(columns: str) -> str:
    return ", ".join(f":{column}" for column in _each(columns))


_NODE_VALUES: Final = _named(NODE_COLUMNS)
_NODE_RENEWED: Final = ", ".join(
    f"{column} = excluded.{column}"
    for column in (
        "node", "host", "pid", "release", "key_id", "key_fingerprint", "pending_id",
        "pending_fingerprint", "readable", "position", "reason", "heartbeat", "last_seen", "proof",
    )
)  # fmt: skip
DRAWN_NAMES: Final = tuple(f"p{n}" for n in range(50))
"""The parameters of `heads_at`, each a position. They are few, as a value may have a MiB."""
_DRAWN: Final = ", ".join(f"CAST(:{name} AS BIGINT)" for name in DRAWN_NAMES)
MOST_ATTESTATIONS: Final = 10
NODE_TEXTS: Final = {
    "node_id": 64, "node": 1024, "host": 1024, "release": 64, "state": 16, "key_id": 64,
    "pending_id": 64, "reason": 64,
}  # fmt: skip
"""Largest number of bytes of each text of a node's line."""
NODE_READABLE: Final = 8 * 1024
"""Largest number of bytes of the list of keys that a node can read."""
NODE_BYTES: Final = {"key_fingerprint": 32, "pending_fingerprint": 32, "proof": 64}
ATTESTED_TEXTS: Final = {"level": 64, "release": 255, "key_id": 64}
ATTESTED_BYTES: Final = {
    "event_hash": 32, "control_hash": 32, "head_keys": 2**16, "key_fingerprint": 32, "mac": 32,
}  # fmt: skip

# The newest event of a stream, and the head row.
_LATEST: Final = """
SELECT {head}, {event}
FROM {s}ledger_head AS h
LEFT JOIN {s}secret_event AS e
  ON e.generation = h.generation AND e.stream = :stream AND e.version = (
    SELECT max(v.version) FROM {s}secret_event AS v
    WHERE v.generation = h.generation AND v.stream = :stream
  )
WHERE h.state IN ('active', 'moved')
LIMIT 1
"""
# The newest events of a stream from a version on, newest first, and the head row. The
# subquery resolves the generation, so that both planners go down the index and stop.
_NEWEST_OF: Final = """
SELECT {head}, e.*
FROM {s}ledger_head AS h
LEFT JOIN (
    SELECT {event} FROM {s}secret_event AS c
    WHERE c.generation = (SELECT u.generation FROM {s}ledger_head AS u
                          WHERE u.state IN ('active', 'moved') LIMIT 1)
      AND c.stream = CAST(:stream AS TEXT) AND c.version >= :least
    ORDER BY c.version DESC LIMIT :limit
) AS e ON e.generation = h.generation
WHERE h.state IN ('active', 'moved') ORDER BY e.version DESC
"""

# Streams in order of their names' bytes. The query skips through the index, one stream at a time:
# so its cost grows with the number of streams, not with their history. Each database looks up the
# newest event of a stream in its own way, which keeps its planner to that.
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
ORDER BY e.stream LIMIT :limit
"""
_NEWEST: Final = """
CROSS JOIN {s}secret_event AS e
WHERE e.generation = :generation AND e.stream = names.stream
 AND e.version = (SELECT max(v.version) FROM {s}secret_event AS v
                  WHERE v.generation = :generation AND v.stream = names.stream)
"""
# The newest event of each stream that has an event at a drawn position.
_HEADS_AT: Final = f"""
SELECT {{what}}, names.position
FROM (
    SELECT f.position, f.stream FROM {{s}}secret_event AS f
    WHERE f.generation = :generation AND f.position IN ({_DRAWN})
) AS names {{newest}}
LIMIT {2 * len(DRAWN_NAMES)}
"""

# Each event comes with the version before it in its stream, and with the newest
# `secret.destroyed` of the stream. So a scan of any length keeps no state by stream.
_CHECK_PAGE: Final = """
SELECT {event}, p.position AS previous_position, {previous} AS previous_hash,
       (SELECT max(d.version) FROM {s}secret_event AS d
        WHERE d.generation = e.generation AND d.stream = e.stream
          AND d.event_type = 'secret.destroyed') AS destroyed,
       {previous_type} AS previous_type,
       CASE WHEN {previous_facts} LIKE '%"floor":%' THEN {previous_facts} END AS previous_facts,
       CASE WHEN e.version > 1 THEN CASE WHEN CAST(:unstated AS INTEGER) = 1 THEN (
        SELECT max(d.version) FROM {s}secret_event AS d
        WHERE d.generation = e.generation AND d.stream = e.stream AND d.version < e.version
          AND d.event_type = 'secret.destroyed') END END AS destroyed_before
FROM {s}secret_event AS e
LEFT JOIN {s}secret_event AS p
  ON p.generation = e.generation AND p.stream = e.stream
 AND p.version = CASE WHEN e.version > 1 THEN e.version - 1 END
WHERE e.generation = :generation AND e.position > :after AND e.position <= :bound
ORDER BY e.position LIMIT :limit
"""


def whole(
    connection: Connection, statements: Statements, rows: Iterable[Any]
) -> Iterator[Sequence[Any]]:
    """The rows of a page. A large `sealed` or `metadata` is fetched when its row is reached."""
    for row in rows:
        sealed, metadata = row[10], row[8]
        if type(sealed) is bytes and metadata is not None:
            yield row
            continue
        place = {"generation": row[0], "position": row[1]}
        # Not `scalar_one`: an attacker's rows may share a position, or hold no value.
        if type(sealed) is not bytes:
            sealed = connection.execute(statements.sealed_at, place).scalars().first()
        if metadata is None and row[2] == CONTROL_STREAM:
            metadata = connection.execute(statements.metadata_at, place).scalars().first()
        raw = sealed if isinstance(sealed, bytes) else b""
        yield (*row[:8], metadata, row[9], raw, *row[11:])


def advancing(before: LogHead, after: LogHead) -> dict[str, int]:
    """The parameters of `Statements.advance_head`."""
    return {
        "generation": before.generation,
        "before": before.position,
        "position": after.position,
        "recorded_at": after.recorded_at,
        "key_epoch": after.key_epoch,
    }


class Checkpoints(NamedTuple):
    """The statements that read and move a projection's checkpoint; each takes `:generation`."""

    read: Statement
    begin: Statement
    """Sets the checkpoint to `:position`, unless the projection has a checkpoint."""
    lock: Statement
    advance: Statement
    """Moves the checkpoint from `:before` to `:position`."""
    forget: Statement
    place: str
    """The table or column that holds the checkpoint, as messages name it."""


class Statements:
    """The named statements, each with its parameters written `:name`."""

    def __init__(
        self,
        schema_prefix: str,
        among: str,
        bounds: Bounds,
        *,
        newest: str = _NEWEST,
        generation: str = ":generation",
        checkpoints: Mapping[str, Checkpoints] | None = None,
    ) -> None:
        """Make the statements of one database.

        `schema_prefix`: the schema and its dot, or empty. `among`: SQL after a column, which asks
        whether the column is one of the texts of `:names`. `bounds`: the SQL that checks lengths.
        `newest`: SQL that looks up the newest event `e` of each of `names`. `generation`: SQL that
        stands for `:generation` in statements on events. `checkpoints`: by the name of a
        projection, if its checkpoint is no row of `projection_checkpoint`.
        """

        def sql(template: str, **parts: str) -> Statement:
            filled = {name: part.replace("{s}", schema_prefix) for name, part in parts.items()}
            text = template.format(s=schema_prefix, **filled)
            if "secret_event" in text:
                text = text.replace("= :generation", f"= {generation}")
            return Statement(text)

        self.prefix: Final = schema_prefix
        self.among: Final = among
        self.bounds: Final = bounds
        event, paged, folded = bounds.row("e"), bounds.paged("e"), bounds.folded("e")
        head = bounds.head("h")
        self.meta: Final = sql(
            f"SELECT {bounds.bytes('ledger_id', 16)}, format, schema_version"
            " FROM {s}ledger_meta LIMIT 2"
        )
        self.insert_meta: Final = sql(
            "INSERT INTO {s}ledger_meta (only_row, ledger_id, format, schema_version)"
            " VALUES (1, :ledger_id, :format, :schema_version)"
        )
        self.lock_meta: Final = sql("UPDATE {s}ledger_meta SET only_row = only_row")
        self.set_format: Final = sql("UPDATE {s}ledger_meta SET format = :format")
        self.set_schema_version: Final = sql(
            "UPDATE {s}ledger_meta SET schema_version = :schema_version"
        )

        self.heads: Final = sql(
            f"SELECT {head} FROM {{s}}ledger_head AS h ORDER BY generation"
            f" LIMIT {MAX_GENERATIONS + 1}"
        )
        self.head_in_use: Final = sql(
            f"SELECT {head} FROM {{s}}ledger_head AS h WHERE state IN ('active', 'moved') LIMIT 1"
        )
        # The end of the log, and the events at its position and at two given positions.
        self.head_and_events: Final = sql(
            f"SELECT {head}, (SELECT max(c.version) FROM {{s}}secret_event AS c"
            f"  WHERE c.generation = h.generation AND c.stream = :control), {paged}"
            " FROM {s}ledger_head AS h LEFT JOIN {s}secret_event AS e"
            " ON e.generation = h.generation AND e.position IN (:seen, :marked, h.position)"
            " WHERE h.state IN ('active', 'moved') LIMIT 8"
        )
        # ORDER BY position: even with old statistics, the planner reads the log's end alone.
        self.changes: Final = sql(
            f"SELECT {head}, {bounds.name('e.stream')}, e.position"
            " FROM {s}ledger_head AS h LEFT JOIN ("
            "  SELECT c.generation, c.stream, c.position FROM {s}secret_event AS c"
            "  WHERE c.generation = (SELECT u.generation FROM {s}ledger_head AS u"
            "   WHERE u.state IN ('active', 'moved'))"
            "  AND c.position > :after ORDER BY c.position LIMIT :limit"
            " ) AS e ON e.generation = h.generation"
            " WHERE h.state IN ('active', 'moved') ORDER BY e.position LIMIT :limit"
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

        self.keys: Final = sql(
            f"SELECT {bounds.key('k')} FROM {{s}}ledger_key AS k ORDER BY k.key_id"
            f" LIMIT {MAX_KEYS + 1}"
        )
        self.insert_key: Final = sql(
            "INSERT INTO {s}ledger_key (key_id, key_fingerprint) VALUES (:key_id, :key_fingerprint)"
        )

        self.moves: Final = sql(
            f"SELECT generation, {bounds.bytes('move_id', 16)}, {bounds.text('place', 4096)}"
            f" FROM {{s}}ledger_move ORDER BY generation LIMIT {MAX_GENERATIONS + 1}"
        )
        self.insert_move: Final = sql(
            "INSERT INTO {s}ledger_move (generation, move_id, place)"
            " VALUES (:generation, :move_id, :place)"
        )

        self.attestation: Final = sql(
            f"SELECT {bounds.columns(ATTESTED_TEXTS, ATTESTED_BYTES, _each(ATTESTATION_COLUMNS))}"
            " FROM {s}ledger_attestation WHERE generation = :generation"
            f" LIMIT {MOST_ATTESTATIONS}"
        )
        self.forget_attestations: Final = sql("DELETE FROM {s}ledger_attestation")
        self.insert_attestation: Final = sql(
            f"INSERT INTO {{s}}ledger_attestation ({ATTESTATION_COLUMNS})"
            f" VALUES ({_named(ATTESTATION_COLUMNS)})"
        )

        self.latest: Final = sql(_LATEST, head=head, event=event)
        self.newest_of: Final = sql(_NEWEST_OF, head=head, event=paged.replace("e.", "c."))
        self.stream_page_down: Final = sql(
            f"SELECT {paged} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND stream = CAST(:stream AS TEXT)"
            " AND version < :below AND version >= :least"
            " ORDER BY e.version DESC LIMIT :limit"
        )
        self.event_at_position: Final = sql(
            f"SELECT {event} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND position = :position LIMIT 1"
        )
        self.events_from: Final = sql(
            f"SELECT {paged} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND position >= :position"
            " ORDER BY e.position LIMIT 2"
        )
        self.newest_events: Final = sql(
            f"SELECT {paged} FROM {{s}}secret_event AS e WHERE generation = :generation"
            " ORDER BY e.position DESC LIMIT :limit"
        )
        self.sealed_at: Final = sql(
            f"SELECT {bounds.bytes('sealed', MAX_SEALED)} FROM {{s}}secret_event"
            " WHERE generation = :generation AND position = :position LIMIT 1"
        )
        self.metadata_at: Final = sql(
            f"SELECT {bounds.text('metadata', CONTROL_METADATA)} FROM {{s}}secret_event"
            " WHERE generation = :generation AND position = :position LIMIT 1"
        )
        self.event_of_version: Final = sql(
            f"SELECT {event} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND stream = CAST(:stream AS TEXT)"
            " AND version = :version LIMIT 1"
        )
        self.first_under: Final = sql(
            f"SELECT {event} FROM (SELECT generation, position FROM {{s}}secret_event"
            " ORDER BY generation DESC, position DESC LIMIT 1000) AS n"
            " JOIN {s}secret_event AS e"
            " ON e.generation = n.generation AND e.position = n.position"
            " WHERE e.key_fingerprint = :key_fingerprint ORDER BY e.position LIMIT 1"
        )
        self.stream_page: Final = sql(
            f"SELECT {paged} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND stream = CAST(:stream AS TEXT)"
            " AND version > :after"
            " ORDER BY e.version LIMIT :limit"
        )
        self.events_page: Final = sql(
            f"SELECT {paged} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND position > :after AND position <= :bound"
            " ORDER BY e.position LIMIT :limit"
        )
        self.fold_page: Final = sql(
            f"SELECT {folded} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND position > :after AND position <= :bound"
            " ORDER BY e.position LIMIT :limit"
        )
        # `position + 0`: else PostgreSQL, while it has no statistics, takes the index of positions
        # and walks the whole log for each page.
        self.by_stream_page: Final = sql(
            f"SELECT {folded} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND position + 0 <= :bound"
            " AND (stream, version) > (CAST(:stream AS TEXT), :version)"
            " ORDER BY e.stream, e.version LIMIT :limit"
        )
        self.streams_between: Final = sql(
            f"SELECT e.position, {bounds.name('e.stream')} FROM {{s}}secret_event AS e"
            " WHERE generation = :generation AND position > :after AND position <= :bound"
            " ORDER BY e.position LIMIT :limit"
        )
        self.begun_streams: Final = sql(
            f"SELECT stream FROM {{s}}secret_event WHERE generation = :generation"
            f" AND stream {among} AND version = 1 AND position + 0 <= :bound"
        )
        self.rows_of_stream: Final = sql(
            "SELECT count(*) FROM {s}secret_event WHERE generation = :generation"
            " AND stream = CAST(:stream AS TEXT) AND position + 0 <= :bound"
        )
        self.any_of_stream: Final = sql(
            "SELECT 1 FROM {s}secret_event WHERE generation = :generation"
            " AND stream = CAST(:stream AS TEXT) AND position <= :bound LIMIT 1"
        )
        self.heads_page_from: Final = sql(_HEADS, after=">=", what=paged, newest=newest)
        self.heads_page_after: Final = sql(_HEADS, after=">", what=paged, newest=newest)
        self.heads_at: Final = sql(_HEADS_AT, what=paged, newest=newest)
        keys = f"{bounds.name('e.stream')} AS stream, {bounds.key('e')}"
        self.head_keys_from: Final = sql(_HEADS, after=">=", what=keys, newest=newest)
        self.head_keys_after: Final = sql(_HEADS, after=">", what=keys, newest=newest)
        # Counts all rows that exist, and believes no head row about the end. The remains of a
        # purged row are short: so no long value is loaded to look at its first byte.
        self.event_keys: Final = sql(
            f"SELECT {bounds.key('e')}, count(*), sum(e.purged), max(e.position), sum(e.size)"
            " FROM (SELECT v.key_id, v.key_fingerprint, v.position, length(v.sealed) AS size,"
            "  CASE WHEN length(v.sealed) = 34 THEN"
            "   CASE WHEN substr(v.sealed, 1, 1) = :purged THEN 1 ELSE 0 END ELSE 0 END AS purged"
            "  FROM {s}secret_event AS v WHERE v.generation = :generation"
            "  AND v.position > :after"
            "  ORDER BY v.position LIMIT :limit) AS e"
            " GROUP BY e.key_id, e.key_fingerprint"
        )
        self.check_page: Final = sql(
            _CHECK_PAGE,
            event=paged,
            previous=bounds.bytes("p.event_hash", 32),
            previous_type=bounds.text("p.event_type", 64),
            previous_facts=bounds.text("p.metadata", SECRET_METADATA),
        )
        self.destroyed_upto: Final = sql(
            "SELECT max(version) FROM {s}secret_event WHERE generation = :generation"
            " AND stream = CAST(:stream AS TEXT) AND event_type = 'secret.destroyed'"
            " AND version <= :upto"
        )
        self.count: Final = sql(
            "SELECT count(*), coalesce(min(position), 0), coalesce(max(position), 0),"
            " (SELECT max(l.generation) FROM {s}secret_event AS l)"
            " FROM {s}secret_event WHERE generation = :generation"
        )
        self.newest_generation: Final = sql("SELECT max(generation) FROM {s}secret_event")
        # Two subqueries, so that neither database scans from one end to the other.
        self.ends: Final = sql(
            "SELECT (SELECT min(position) FROM {s}secret_event WHERE generation = :generation),"
            " (SELECT max(position) FROM {s}secret_event WHERE generation = :generation)"
        )
        # Each complete stream has a version 1. Only for the length of a progress bar.
        self.count_first_versions: Final = sql(
            "SELECT count(*) FROM {s}secret_event WHERE generation = :generation AND version = 1"
        )
        # Counts the events along the index that every read of a secret takes, and the streams
        # that miss a version.
        self.count_by_stream: Final = sql(
            "SELECT CAST(coalesce(sum(n), 0) AS BIGINT),"
            " coalesce(sum(CASE WHEN lowest <> 1 OR highest <> n THEN 1 ELSE 0 END), 0)"
            " FROM (SELECT count(*) AS n, min(version) AS lowest, max(version) AS highest"
            " FROM {s}secret_event WHERE generation = :generation GROUP BY stream) AS s"
        )
        self.broken_streams: Final = sql(
            f"SELECT {bounds.name('e.stream')}, count(*), min(version), max(version)"
            " FROM {s}secret_event AS e WHERE generation = :generation GROUP BY e.stream"
            " HAVING min(version) <> 1 OR max(version) <> count(*) ORDER BY e.stream LIMIT :limit"
        )
        self.event_hashes: Final = sql(
            f"SELECT position, {bounds.bytes('event_hash', 32)}"
            " FROM {s}secret_event WHERE generation = :generation"
            " AND position > :after ORDER BY position LIMIT :limit"
        )
        # Deletes from the end. Only a purge does it: the triggers refuse any other deletion.
        self.delete_events: Final = sql(
            "DELETE FROM {s}secret_event WHERE generation = :generation AND position > :after"
        )
        self.generations_of_events: Final = sql(
            "SELECT generation, count(*), min(position), max(position)"
            " FROM {s}secret_event GROUP BY generation ORDER BY generation"
            f" LIMIT {MAX_GENERATIONS + 1}"
        )

        self.current_of_generation: Final = (
            f"FROM {schema_prefix}secret_current WHERE generation = :generation"
        )
        self.current_by_key: Final = sql(
            f"SELECT {bounds.bytes('key_fingerprint', 32)}, count(*) {{rows}}"
            f" GROUP BY key_fingerprint LIMIT {MAX_KEYS + 1}",
            rows=self.current_of_generation,
        )
        self.advance_checkpoint: Final = sql(
            "UPDATE {s}projection_checkpoint SET position = :position"
            " WHERE projection = :projection AND generation = :generation"
            " AND position = :before"
        )
        self._checkpoints: Final = Checkpoints(
            read=sql(
                "SELECT position FROM {s}projection_checkpoint"
                " WHERE projection = :projection AND generation = :generation"
            ),
            begin=sql(
                "INSERT INTO {s}projection_checkpoint (projection, generation, position)"
                " VALUES (:projection, :generation, :position)"
                " ON CONFLICT (projection, generation) DO NOTHING"
            ),
            lock=sql(
                "UPDATE {s}projection_checkpoint SET position = position"
                " WHERE projection = :projection AND generation = :generation RETURNING position"
            ),
            advance=self.advance_checkpoint,
            forget=sql(
                "DELETE FROM {s}projection_checkpoint"
                " WHERE projection = :projection AND generation = :generation"
            ),
            place="projection_checkpoint",
        )
        self._own_checkpoints: Final = checkpoints or {}

        line = bounds.columns(NODE_TEXTS, NODE_BYTES, _each(NODE_COLUMNS)).replace(
            " readable,", f" {bounds.text('readable', NODE_READABLE)},"
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
            f"SELECT {line} FROM {{s}}ledger_node WHERE state <> 'refused'"
            " AND key_fingerprint <> :active AND node_id <> :besides"
            " ORDER BY last_seen DESC LIMIT 100"
        )
        self.two_live_nodes: Final = sql(
            f"SELECT {bounds.begun('node_id', 64)} FROM {{s}}ledger_node"
            " WHERE state = 'live' AND node_id <> :besides"
            " AND last_seen + 3 * heartbeat >= :now LIMIT 2"
        )
        self.nodes: Final = sql(
            f"SELECT {line} FROM {{s}}ledger_node ORDER BY state, last_seen DESC LIMIT :limit"
        )

    def checkpoints(self, projection: str) -> Checkpoints:
        """The statements that read and move the checkpoint of a projection."""
        return self._own_checkpoints.get(projection, self._checkpoints)
