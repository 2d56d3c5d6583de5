-- What a whole verification has proven, so that an incremental boot need not begin anew. One
-- row, authenticated under a key (ledger.attestation): one that does not authenticate counts
-- for nothing.

CREATE TABLE ledger_attestation (
    generation      INTEGER PRIMARY KEY,
    format          INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    level           TEXT    NOT NULL,
    heads           INTEGER NOT NULL,
    event_hash      BLOB    NOT NULL,
    control_hash    BLOB    NOT NULL,
    head_keys       BLOB    NOT NULL,
    verified_at     INTEGER NOT NULL,
    release         TEXT    NOT NULL,
    key_id          TEXT    NOT NULL,
    key_fingerprint BLOB    NOT NULL,
    mac             BLOB    NOT NULL
) STRICT;
