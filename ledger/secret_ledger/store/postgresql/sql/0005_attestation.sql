-- What a whole verification has proven, so that an incremental boot need not begin anew. One
-- row, authenticated under a key (ledger.attestation): one that does not authenticate counts
-- for nothing.

CREATE TABLE {s}ledger_attestation (
    generation      integer PRIMARY KEY,
    format          integer NOT NULL,
    position        bigint  NOT NULL,
    level           text    COLLATE "C" NOT NULL,
    heads           bigint  NOT NULL,
    event_hash      bytea   NOT NULL,
    control_hash    bytea   NOT NULL,
    head_keys       bytea   NOT NULL,
    verified_at     bigint  NOT NULL,
    release         text    COLLATE "C" NOT NULL,
    key_id          text    COLLATE "C" NOT NULL,
    key_fingerprint bytea   NOT NULL,
    mac             bytea   NOT NULL
);
