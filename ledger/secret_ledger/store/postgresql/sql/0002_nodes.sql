-- Who has the ledger open, and who was refused. Unauthenticated: shown, never decided on.

CREATE TABLE {s}ledger_node (
    node_id             text    COLLATE "C" NOT NULL PRIMARY KEY,
    node                text    COLLATE "C" NOT NULL,
    host                text    NOT NULL,
    pid                 bigint  NOT NULL,
    release             text    NOT NULL,
    state               text    COLLATE "C" NOT NULL,
    key_id              text    COLLATE "C" NOT NULL,
    key_fingerprint     bytea   NOT NULL,
    pending_id          text    COLLATE "C",
    pending_fingerprint bytea,
    readable            text    NOT NULL,
    position            bigint  NOT NULL,
    reason              text    COLLATE "C" NOT NULL,
    refusals            bigint  NOT NULL,
    heartbeat           bigint  NOT NULL,
    started_at          bigint  NOT NULL,
    last_seen           bigint  NOT NULL
) WITH (fillfactor = 50);

CREATE UNIQUE INDEX ledger_node_refused ON {s}ledger_node (node, key_id, key_fingerprint, reason)
    WHERE state = 'refused';
