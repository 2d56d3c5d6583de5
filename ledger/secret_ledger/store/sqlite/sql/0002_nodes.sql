-- Who has the ledger open, and who was refused. Unauthenticated: shown, never decided on.

CREATE TABLE ledger_node (
    node_id             TEXT    NOT NULL PRIMARY KEY,
    node                TEXT    NOT NULL,
    host                TEXT    NOT NULL,
    pid                 INTEGER NOT NULL,
    release             TEXT    NOT NULL,
    state               TEXT    NOT NULL,
    key_id              TEXT    NOT NULL,
    key_fingerprint     BLOB    NOT NULL,
    pending_id          TEXT,
    pending_fingerprint BLOB,
    readable            TEXT    NOT NULL,
    position            INTEGER NOT NULL,
    reason              TEXT    NOT NULL,
    refusals            INTEGER NOT NULL,
    heartbeat           INTEGER NOT NULL,
    started_at          INTEGER NOT NULL,
    last_seen           INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX ledger_node_refused ON ledger_node (node, key_id, key_fingerprint, reason)
    WHERE state = 'refused';
