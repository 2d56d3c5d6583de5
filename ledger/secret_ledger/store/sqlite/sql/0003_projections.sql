-- The read side: folds of the log, always rebuildable, never the truth.

CREATE TABLE secret_current (
    generation      INTEGER NOT NULL,
    name            TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('live', 'deleted', 'destroyed')),
    key_id          TEXT    NOT NULL,
    key_fingerprint BLOB    NOT NULL,
    created_at      INTEGER NOT NULL,
    created_by      TEXT,
    updated_at      INTEGER NOT NULL,
    updated_by      TEXT,
    PRIMARY KEY (generation, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE projection_checkpoint (
    projection TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    PRIMARY KEY (projection, generation)
) STRICT, WITHOUT ROWID;

CREATE VIEW sys_secret AS
SELECT c.name, c.version, c.position, c.state, c.key_id, c.key_fingerprint,
       c.created_at, c.created_by, c.updated_at, c.updated_by
FROM secret_current AS c
JOIN ledger_head AS h ON h.generation = c.generation
WHERE h.state IN ('active', 'moved');
