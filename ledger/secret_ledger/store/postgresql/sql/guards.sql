-- What keeps the log append-only. It is run behind the numbered files; and by `schema upgrade`
-- again, where the catalogue says otherwise: a dump that was restored with --disable-triggers.

-- It names no schema: it goes along with a schema that is renamed. And no search path decides
-- what its operators are. Triggers guard against accidents, seals against attackers.
CREATE OR REPLACE FUNCTION {s}secret_event_append_only() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    refused boolean := true;
BEGIN
    IF TG_OP OPERATOR(pg_catalog.<>) 'DELETE' THEN
        RAISE EXCEPTION 'secret_event is append-only: no %', TG_OP;
    END IF;
    EXECUTE pg_catalog.format(
        'SELECT EXISTS (SELECT 1 FROM gone AS g WHERE NOT EXISTS (SELECT 1 FROM %I.ledger_head AS h'
        ' WHERE h.generation OPERATOR(pg_catalog.=) g.generation'
        ' AND h.state OPERATOR(pg_catalog.=) ''purging''))', TG_TABLE_SCHEMA
    ) INTO refused;
    IF refused THEN
        RAISE EXCEPTION 'secret_event is append-only: no DELETE outside a purge';
    END IF;
    RETURN NULL;
END
$$;

DROP TRIGGER IF EXISTS secret_event_append_only ON {s}secret_event;

CREATE TRIGGER secret_event_append_only BEFORE UPDATE ON {s}secret_event
    FOR EACH ROW EXECUTE FUNCTION {s}secret_event_append_only();

DROP TRIGGER IF EXISTS secret_event_no_delete ON {s}secret_event;

-- Once for all rows of a statement: to look for each row costs a purge ten times as much.
CREATE TRIGGER secret_event_no_delete AFTER DELETE ON {s}secret_event
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION {s}secret_event_append_only();

DROP TRIGGER IF EXISTS secret_event_no_truncate ON {s}secret_event;

CREATE TRIGGER secret_event_no_truncate BEFORE TRUNCATE ON {s}secret_event
    FOR EACH STATEMENT EXECUTE FUNCTION {s}secret_event_append_only();

-- Also in a session that plays back replication, where ordinary triggers rest.
ALTER TABLE {s}secret_event ENABLE ALWAYS TRIGGER secret_event_append_only;

ALTER TABLE {s}secret_event ENABLE ALWAYS TRIGGER secret_event_no_truncate;

ALTER TABLE {s}secret_event ENABLE ALWAYS TRIGGER secret_event_no_delete;
