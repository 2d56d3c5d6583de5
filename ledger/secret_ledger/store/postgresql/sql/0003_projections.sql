-- The read side: folds of the log, always rebuildable, never the truth.

CREATE TABLE {s}secret_current (
    generation      integer NOT NULL,
    name            text    COLLATE "C" NOT NULL,
    version         bigint  NOT NULL,
    position        bigint  NOT NULL,
    state           text    NOT NULL CHECK (state IN ('live', 'deleted', 'destroyed')),
    key_id          text    COLLATE "C" NOT NULL,
    key_fingerprint bytea   NOT NULL,
    created_at      bigint  NOT NULL,
    created_by      text,
    updated_at      bigint  NOT NULL,
    updated_by      text,
    PRIMARY KEY (generation, name)
) WITH (
    -- Each write of a secret leaves an old row: room for the new one on its page, and a vacuum
    -- before a fiftieth of the table is dead rows.
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02
);

CREATE TABLE {s}projection_checkpoint (
    projection text    COLLATE "C" NOT NULL,
    generation integer NOT NULL,
    position   bigint  NOT NULL,
    PRIMARY KEY (projection, generation)
) WITH (fillfactor = 20, autovacuum_vacuum_cost_delay = 0);

CREATE VIEW {s}sys_secret AS
SELECT c.name, c.version, c.position, c.state, c.key_id, c.key_fingerprint,
       c.created_at, c.created_by, c.updated_at, c.updated_by
FROM {s}secret_current AS c
JOIN {s}ledger_head AS h ON h.generation = c.generation
WHERE h.state IN ('active', 'moved');
