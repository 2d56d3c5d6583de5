"""A schema that stands before `pg_catalog` on the search path, and holds all that the ledger's
statements could mean by a name: whatever resolves to it is caught.

Each bait raises, unless the driver's or SQLAlchemy's own statement has called it while it
connects: then it answers as PostgreSQL's own does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import asyncpg
from sqlalchemy.engine import make_url

SCHEMA: Final = "bait"
CAUGHT: Final = "resolved by the search path"
SOURCES: Final = Path(__file__).parent.parent
_TYPES: Final = (
    "int2", "int4", "int8", "numeric", "float8", "text", "bytea", "bool",
    "timestamptz", "interval", "pg_lsn", "_text", "_int4", "_int8", "_bytea",
)  # fmt: skip
"""Not `oid` and `name`: asyncpg's own statements look through the catalogue with them."""
_DOMAINS: Final = ("bytea", "float8", "trigger")
"""Not `text`: asyncpg's own statements say it, and would look it up without end."""
_PREPARE: Final = """
CREATE SCHEMA bait;
CREATE FUNCTION bait.catch(name text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog
AS $$
BEGIN
    IF current_query() !~ 'typname|typarray|current_schema|jit' THEN
        RAISE EXCEPTION '% was resolved by the search path: %', name, current_query();
    END IF;
END
$$;
CREATE TABLE bait.types AS
    SELECT t.oid, format('pg_catalog.%I', t.typname) AS name
    FROM pg_catalog.pg_type AS t
    WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typname = ANY ($types);
CREATE FUNCTION bait.named(oids oid[]) RETURNS text[] LANGUAGE sql AS $$
    SELECT coalesce(array_agg(t.name ORDER BY o.n), '{}')
    FROM unnest(oids) WITH ORDINALITY AS o (oid, n) LEFT JOIN bait.types AS t USING (oid)
$$;
"""
_PLANT: Final = """
DO $plant$
DECLARE
    f record;
    a text;
BEGIN
    -- Operators of those types, and of each two kinds of numbers, which have none of their own.
    FOR f IN
        SELECT o.oprname AS name, l.name AS l, r.name AS r, format_type(o.oprresult, NULL) AS result
        FROM pg_operator AS o JOIN bait.types AS l ON l.oid = o.oprleft
        JOIN bait.types AS r ON r.oid = o.oprright
        WHERE o.oprnamespace = 'pg_catalog'::regnamespace
        UNION
        SELECT n.name, 'pg_catalog.' || l, 'pg_catalog.' || r,
            CASE WHEN n.name IN ('+', '-', '*', '/') THEN 'numeric' ELSE 'boolean' END
        FROM unnest(ARRAY['=', '<>', '<', '>', '<=', '>=', '+', '-', '*', '/']) AS n (name),
            unnest(ARRAY['int4', 'int8', 'numeric']) AS l,
            unnest(ARRAY['int4', 'int8', 'numeric']) AS r
        WHERE 'numeric' IN (l, r) AND l <> r
    LOOP
        a := 'operator_' || md5(f.name || f.l || f.r);
        EXECUTE format(
            'CREATE FUNCTION bait.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS $b$ BEGIN'
            ' PERFORM bait.catch(%L); RETURN $1 OPERATOR(pg_catalog.%s) $2; END $b$',
            a, f.l, f.r, f.result, f.name, f.name);
        EXECUTE format('CREATE OPERATOR bait.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = bait.%I)',
            f.name, f.l, f.r, a);
    END LOOP;
    -- Functions and aggregates by the names that the sources hold; arrays for any array.
    FOR f IN
        SELECT p.proname AS name, p.prokind AS kind, p.proretset AS many,
            CASE WHEN p.proretset AND p.prorettype = 'anyelement'::regtype THEN e.element
                ELSE format_type(p.prorettype, NULL) END AS result,
            CASE WHEN p.proargtypes[0] = 'anyarray'::regtype AND p.pronargs = 1
                THEN e.element || '[]'
                ELSE array_to_string(bait.named(p.proargtypes), ', ', '?') END AS given
        FROM pg_proc AS p,
            unnest(ARRAY['pg_catalog.text', 'int8', 'int4', 'pg_catalog.bytea']) AS e (element)
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY ($names)
            AND p.prokind IN ('f', 'a') AND p.provariadic = 0
            AND (e.element = 'int8' OR p.proargtypes[0] = 'anyarray'::regtype AND p.pronargs = 1)
            AND (p.proretset OR p.prorettype NOT IN (SELECT oid FROM pg_type WHERE typtype = 'p'))
    LOOP
        CONTINUE WHEN f.given LIKE '%?%';
        IF f.kind = 'a' THEN
            CONTINUE WHEN f.given LIKE '%,%';
            EXECUTE format(
                'CREATE OR REPLACE FUNCTION bait.%I(s %s%s) RETURNS %s LANGUAGE plpgsql'
                ' AS $b$ BEGIN PERFORM bait.catch(%L); RETURN s; END $b$',
                'step_' || f.name, f.result, coalesce(', v ' || nullif(f.given, ''), ''),
                f.result, f.name);
            EXECUTE format('CREATE AGGREGATE bait.%I(%s) (SFUNC = bait.%I, STYPE = %s)',
                f.name, coalesce(nullif(f.given, ''), '*'), 'step_' || f.name, f.result);
        ELSE
            SELECT coalesce(string_agg('$' || n, ', '), '') INTO a FROM
                unnest(string_to_array(nullif(f.given, ''), ',')) WITH ORDINALITY AS g (type, n);
            EXECUTE format(
                'CREATE FUNCTION bait.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS $b$ BEGIN'
                ' PERFORM bait.catch(%L); %s pg_catalog.%I(%s); %s END $b$',
                f.name, f.given, CASE WHEN f.many THEN 'SETOF' END, f.result, f.name,
                CASE WHEN f.many THEN 'RETURN QUERY SELECT' ELSE 'RETURN' END, f.name, a,
                CASE WHEN f.many THEN 'RETURN;' END);
        END IF;
    END LOOP;
    FOREACH a IN ARRAY $domains LOOP
        EXECUTE format('CREATE DOMAIN bait.%I AS int4', a);
    END LOOP;
    CREATE COLLATION bait."C" (provider = libc, locale = 'POSIX');
END
$plant$
"""


def _list(values: set[str] | tuple[str, ...]) -> str:
    return "ARRAY[" + ", ".join(f"'{value}'" for value in sorted(values)) + "]"


def _names() -> set[str]:
    """All that the sources call, in SQL and elsewhere."""
    found: set[str] = set()
    for folder in ("ledger/secret_ledger/store", "projections"):
        for file in (SOURCES / folder).rglob("*"):
            if file.suffix in (".py", ".sql"):
                found.update(re.findall(r"\b([a-z_]\w*)\(", file.read_text("utf-8")))
    return found


async def plant(url: str) -> list[str]:
    """Plant the baits in a database, first on its search path; what was planted."""
    parts = {"$types": _list(_TYPES), "$names": _list(_names()), "$domains": _list(_DOMAINS)}
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        for script in (_PREPARE, _PLANT):
            for part, filled in parts.items():
                script = script.replace(part, filled)
            await connection.execute(script)
        database = make_url(url).database
        await connection.execute(f'ALTER DATABASE "{database}" SET search_path = bait, pg_catalog')
        planted = await connection.fetch(
            "SELECT proname::text FROM pg_proc WHERE pronamespace = 'bait'::regnamespace"
            " UNION SELECT oprname || '' FROM pg_operator"
            " WHERE oprnamespace = 'bait'::regnamespace"
            " UNION SELECT typname::text FROM pg_type WHERE typnamespace = 'bait'::regnamespace"
        )
    finally:
        await connection.close()
    return [name for (name,) in planted]
