-- The truth: which ledger this is, its generations, its keys, and the log.
-- Statements are separated by an empty line; {s} stands for the schema and its dot.
-- Each file is applied in one transaction.

CREATE TABLE {s}ledger_meta (
    only_row       integer PRIMARY KEY CHECK (only_row = 1),
    ledger_id      bytea   NOT NULL CHECK (length(ledger_id) = 16),
    format         integer NOT NULL,
    schema_version integer NOT NULL
);

CREATE TABLE {s}ledger_head (
    generation  integer PRIMARY KEY CHECK (generation >= 0),
    position    bigint  NOT NULL,
    recorded_at bigint  NOT NULL,
    key_epoch   bigint  NOT NULL,
    state       text    NOT NULL
        CHECK (state IN ('building', 'active', 'closed', 'purging', 'purged', 'moved'))
) WITH (
    -- One row, changed by every append: its old versions stay on its page, and where a long
    -- transaction has kept them the next vacuum is done with them at once.
    fillfactor = 20,
    autovacuum_vacuum_cost_delay = 0
);

CREATE UNIQUE INDEX ledger_head_one_in_use ON {s}ledger_head ((1))
    WHERE state IN ('active', 'moved');

CREATE TABLE {s}ledger_key (
    key_id          text  COLLATE "C" NOT NULL PRIMARY KEY,
    key_fingerprint bytea NOT NULL UNIQUE CHECK (length(key_fingerprint) = 32),
    UNIQUE (key_id, key_fingerprint)
);

CREATE TABLE {s}secret_event (
    generation      integer NOT NULL,
    position        bigint  NOT NULL,
    stream          text    COLLATE "C" NOT NULL,
    version         bigint  NOT NULL,
    event_type      text    COLLATE "C" NOT NULL,
    key_id          text    COLLATE "C" NOT NULL,
    key_fingerprint bytea   NOT NULL,
    recorded_at     bigint  NOT NULL,
    metadata        text    COLLATE "C" NOT NULL,
    prev_hash       bytea   NOT NULL,
    sealed          bytea   NOT NULL,
    event_hash      bytea   NOT NULL,
    PRIMARY KEY (generation, position),
    UNIQUE (generation, stream, version),
    FOREIGN KEY (key_id, key_fingerprint) REFERENCES {s}ledger_key (key_id, key_fingerprint)
);

-- Sealed bytes do not compress; don't let the server try.
ALTER TABLE {s}secret_event ALTER COLUMN sealed SET STORAGE EXTERNAL;

CREATE INDEX secret_event_destroyed ON {s}secret_event (generation, stream, version)
    WHERE event_type = 'secret.destroyed';

CREATE FUNCTION {s}secret_event_append_only() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (
            SELECT 1 FROM {s}ledger_head
            WHERE generation = OLD.generation AND state = 'purging'
        ) THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'secret_event is append-only: no DELETE outside a purge';
    END IF;
    RAISE EXCEPTION 'secret_event is append-only: no %', TG_OP;
END
$$;

CREATE TRIGGER secret_event_append_only BEFORE UPDATE OR DELETE ON {s}secret_event
    FOR EACH ROW EXECUTE FUNCTION {s}secret_event_append_only();

CREATE TRIGGER secret_event_no_truncate BEFORE TRUNCATE ON {s}secret_event
    FOR EACH STATEMENT EXECUTE FUNCTION {s}secret_event_append_only();

-- Also in a session that plays back replication, where ordinary triggers rest.
ALTER TABLE {s}secret_event ENABLE ALWAYS TRIGGER secret_event_append_only;

ALTER TABLE {s}secret_event ENABLE ALWAYS TRIGGER secret_event_no_truncate;
