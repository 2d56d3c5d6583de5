-- What keeps the log append-only. It is run behind the numbered files; and by `schema upgrade`
-- again, where the schema says otherwise. Triggers guard against accidents, seals against attackers.

DROP TRIGGER IF EXISTS secret_event_no_update;

CREATE TRIGGER secret_event_no_update BEFORE UPDATE ON secret_event
BEGIN
    SELECT RAISE(ABORT, 'secret_event is append-only: no UPDATE');
END;

DROP TRIGGER IF EXISTS secret_event_no_delete;

CREATE TRIGGER secret_event_no_delete BEFORE DELETE ON secret_event
WHEN NOT EXISTS (
    SELECT 1 FROM ledger_head WHERE generation = OLD.generation AND state = 'purging'
)
BEGIN
    SELECT RAISE(ABORT, 'secret_event is append-only: no DELETE outside a purge');
END;

DROP TRIGGER IF EXISTS secret_event_no_replace;

-- INSERT OR REPLACE deletes the row in its way without firing the trigger above.
CREATE TRIGGER secret_event_no_replace BEFORE INSERT ON secret_event
WHEN EXISTS (
    SELECT 1 FROM secret_event WHERE generation = NEW.generation AND position = NEW.position
) OR EXISTS (
    SELECT 1 FROM secret_event
    WHERE generation = NEW.generation AND stream = NEW.stream AND version = NEW.version
)
BEGIN
    SELECT RAISE(ABORT, 'secret_event is append-only: no REPLACE');
END;
