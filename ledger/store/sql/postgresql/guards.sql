-- What keeps the log append-only. It is run behind the numbered files; and by `schema upgrade`
-- again, where the catalogue says otherwise: a dump that was restored with --disable-triggers.

-- It names no schema: it goes along with a schema that is renamed. And no search path decides
-- what its operators are. Triggers guard against accidents, seals against attackers.
CREATE OR REPLACE FUNCTION {s}secret_event_append_only() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    purging boolean := false;
BEGIN
    IF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN
        EXECUTE pg_catalog.format(
            'SELECT EXISTS (SELECT 1 FROM %I.ledger_head WHERE generation OPERATOR(pg_catalog.=) $1'
            ' AND state OPERATOR(pg_catalog.=) ''purging'')', TG_TABLE_SCHEMA
        ) INTO purging USING OLD.generation;
        IF purging THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'secret_event is append-only: no DELETE outside a purge';
    END IF;
    RAISE EXCEPTION 'secret_event is append-only: no %', TG_OP;
END
$$;

DROP TRIGGER IF EXISTS secret_event_append_only ON {s}secret_event;

CREATE TRIGGER secret_event_append_only BEFORE UPDATE OR DELETE ON {s}secret_event
    FOR EACH ROW EXECUTE FUNCTION {s}secret_event_append_only();

DROP TRIGGER IF EXISTS secret_event_no_truncate ON {s}secret_event;

CREATE TRIGGER secret_event_no_truncate BEFORE TRUNCATE ON {s}secret_event
    FOR EACH STATEMENT EXECUTE FUNCTION {s}secret_event_append_only();

-- Also in a session that plays back replication, where ordinary triggers rest.
ALTER TABLE {s}secret_event ENABLE ALWAYS TRIGGER secret_event_append_only;

ALTER TABLE {s}secret_event ENABLE ALWAYS TRIGGER secret_event_no_truncate;
