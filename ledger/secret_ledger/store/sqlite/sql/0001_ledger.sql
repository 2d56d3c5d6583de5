-- The truth: which ledger this is, its generations, its keys, and the log.
-- Statements are separated by an empty line. Each file is applied in one transaction.

CREATE TABLE ledger_meta (
    only_row       INTEGER PRIMARY KEY CHECK (only_row = 1),
    ledger_id      BLOB    NOT NULL CHECK (length(ledger_id) = 16),
    format         INTEGER NOT NULL,
    schema_version INTEGER NOT NULL
) STRICT;

CREATE TABLE ledger_head (
    generation  INTEGER PRIMARY KEY CHECK (generation >= 0),
    position    INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    key_epoch   INTEGER NOT NULL,
    state       TEXT    NOT NULL
        CHECK (state IN ('building', 'active', 'closed', 'purging', 'purged', 'moved'))
) STRICT;

CREATE UNIQUE INDEX ledger_head_one_in_use ON ledger_head ((1))
    WHERE state IN ('active', 'moved');

CREATE TABLE ledger_key (
    key_id          TEXT NOT NULL PRIMARY KEY,
    key_fingerprint BLOB NOT NULL UNIQUE CHECK (length(key_fingerprint) = 32),
    UNIQUE (key_id, key_fingerprint)
) STRICT;

CREATE TABLE secret_event (
    generation      INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    stream          TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    event_type      TEXT    NOT NULL,
    key_id          TEXT    NOT NULL,
    key_fingerprint BLOB    NOT NULL,
    recorded_at     INTEGER NOT NULL,
    metadata        TEXT    NOT NULL,
    prev_hash       BLOB    NOT NULL,
    sealed          BLOB    NOT NULL,
    event_hash      BLOB    NOT NULL,
    PRIMARY KEY (generation, position),
    UNIQUE (generation, stream, version),
    FOREIGN KEY (key_id, key_fingerprint) REFERENCES ledger_key (key_id, key_fingerprint)
) STRICT;

CREATE INDEX secret_event_destroyed ON secret_event (generation, stream, version)
    WHERE event_type = 'secret.destroyed';

CREATE TRIGGER secret_event_no_update BEFORE UPDATE ON secret_event
BEGIN
    SELECT RAISE(ABORT, 'secret_event is append-only: no UPDATE');
END;

CREATE TRIGGER secret_event_no_delete BEFORE DELETE ON secret_event
WHEN NOT EXISTS (
    SELECT 1 FROM ledger_head WHERE generation = OLD.generation AND state = 'purging'
)
BEGIN
    SELECT RAISE(ABORT, 'secret_event is append-only: no DELETE outside a purge');
END;

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
