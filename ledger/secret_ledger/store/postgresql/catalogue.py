"""The ledger's schema as PostgreSQL's catalogue describes it (see `store.catalogue`)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from secret_ledger.store.connection import Connection, Statement
from secret_ledger.store.database import Facts
from secret_ledger.store.schema import OUR_TABLES

__all__ = ["as_text", "facts", "made"]

_FACTS: Final = Statement("""
WITH ours AS (
    SELECT c.oid, CAST(c.relname AS text) AS name, c.relkind, c.relpersistence
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND CAST(c.relname AS text) = ANY (CAST(:names AS text[]))
)
SELECT CASE WHEN o.relkind = 'v' THEN 'view' ELSE 'table' END, o.name,
    concat(
        CASE WHEN o.relpersistence = 'p' THEN 'kept' ELSE 'not kept after a crash' END,
        CASE WHEN o.relkind <> 'r' AND o.relkind <> 'v' THEN concat(', of kind ', o.relkind) END)
FROM ours AS o
UNION ALL
SELECT 'row-level security', o.name, 'in force for this role'
FROM ours AS o WHERE row_security_active(o.oid)
UNION ALL
SELECT 'rule', concat(o.name, '.', r.rulename), ''
FROM pg_catalog.pg_rewrite AS r JOIN ours AS o ON o.oid = r.ev_class
WHERE o.relkind <> 'v' OR r.rulename <> '_RETURN'
UNION ALL
SELECT 'inheritance', o.name, 'with another table'
FROM pg_catalog.pg_inherits AS i JOIN ours AS o ON o.oid IN (i.inhparent, i.inhrelid)
UNION ALL
SELECT 'column', concat(o.name, '.', a.attname),
    concat(tn.nspname, '.', t.typname, CASE WHEN a.attcollation <> 0 THEN
        (SELECT concat(' ', c.collname) FROM pg_catalog.pg_collation AS c
         WHERE c.oid = a.attcollation) END,
        CASE WHEN a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' THEN ' given' END)
FROM pg_catalog.pg_attribute AS a JOIN ours AS o ON o.oid = a.attrelid
JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.typnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND o.relkind <> 'v'
UNION ALL
SELECT 'constraint', concat(o.name, '.', a.attname), 'not null'
FROM pg_catalog.pg_attribute AS a JOIN ours AS o ON o.oid = a.attrelid
WHERE a.attnum > 0 AND a.attnotnull AND NOT a.attisdropped
UNION ALL
SELECT 'unique index', concat(o.name, ' (', (
        SELECT string_agg(concat(a.attname), ', ' ORDER BY k.n)
        FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, n)
        LEFT JOIN pg_catalog.pg_attribute AS a
            ON a.attrelid = i.indrelid AND a.attnum = k.attnum), ')'),
    concat(CASE WHEN i.indisvalid AND i.indisready THEN 'valid' ELSE 'not valid' END,
        CASE WHEN i.indpred IS NOT NULL THEN ', of some rows' END)
FROM pg_catalog.pg_index AS i JOIN ours AS o ON o.oid = i.indrelid
WHERE i.indisunique
UNION ALL
SELECT 'constraint', concat(o.name, '.', c.conname),
    CASE WHEN c.convalidated THEN 'valid' ELSE 'not valid' END
FROM pg_catalog.pg_constraint AS c JOIN ours AS o ON o.oid = c.conrelid
WHERE c.contype IN ('c', 'f')
UNION ALL
SELECT 'trigger', concat(o.name, '.', t.tgname),
    concat(CASE WHEN t.tgenabled = 'A' THEN 'always' WHEN t.tgenabled = 'D' THEN 'disabled'
        ELSE 'not in force everywhere' END,
        CASE WHEN t.tgqual IS NOT NULL THEN ', under a condition' END,
        ', ', t.tgtype, ' ', CASE WHEN pn.nspname <> :schema THEN concat(pn.nspname, '.') END,
        p.proname)
FROM pg_catalog.pg_trigger AS t JOIN ours AS o ON o.oid = t.tgrelid
JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.pronamespace
WHERE NOT t.tgisinternal
UNION ALL
SELECT 'foreign keys of', o.name, 'not in force everywhere'
FROM ours AS o WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_trigger AS t
    WHERE t.tgrelid = o.oid AND t.tgisinternal AND t.tgenabled <> 'O')
UNION ALL
SELECT 'function', CAST(p.proname AS text),
    concat(p.prosrc, array_to_string(p.proconfig, ' '), CASE WHEN p.prosecdef THEN ' definer' END)
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = :schema AND p.proname = 'secret_event_append_only'
""")


def facts(connection: Connection, schema: str) -> Facts:
    """The facts about our names in the schema, as this role meets them; read in one statement."""
    given = {"schema": schema, "names": sorted(OUR_TABLES)}
    return {(row[0], row[1]): _plain(row[2]) for row in connection.execute(_FACTS, given)}


@cache
def made() -> Facts:
    """The facts about a new schema, made by all numbered files and the guards."""
    text = (files("secret_ledger.store.postgresql") / "sql" / "made.txt").read_text("utf-8")
    lines = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return {(kind, name): what for kind, name, what in lines}


def as_text(found: Facts) -> str:
    """The facts as `made.txt` holds them: one line for each fact."""
    return "".join(f"{kind}\t{name}\t{what}\n" for (kind, name), what in sorted(found.items()))


def _plain(what: str) -> str:
    return " ".join(what.split())
