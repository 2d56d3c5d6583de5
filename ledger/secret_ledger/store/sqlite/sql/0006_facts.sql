-- What the first release needs beside the facts that its events seal.

-- Wrapped root keys: the ciphertexts that the control stream names by key and SHA-256. Nothing
-- here is proven, so a row that no opened event names counts for nothing. The key may not be
-- introduced yet, so no foreign key holds it. A row can be deleted, and is never changed.
CREATE TABLE ledger_wrap (
    key_fingerprint BLOB NOT NULL CHECK (length(key_fingerprint) = 32),
    wrap_hash       BLOB NOT NULL CHECK (length(wrap_hash) = 32),
    wrapped         BLOB NOT NULL CHECK (length(wrapped) >= 1 AND length(wrapped) <= 8192),
    PRIMARY KEY (key_fingerprint, wrap_hash)
) STRICT;

-- What proves that a holder of a key wrote a node's line (ledger.node_proof). NULL for a refused
-- boot, which proves nothing.
ALTER TABLE ledger_node ADD COLUMN proof BLOB;

-- The checkpoint of sys_secret moves with the log at every append, so it lies in the head row:
-- a page of its own was one of the seven that an append wrote.
ALTER TABLE ledger_head ADD COLUMN sys_secret_position INTEGER;

UPDATE ledger_head SET sys_secret_position = (
    SELECT c.position FROM projection_checkpoint AS c
    WHERE c.projection = 'sys_secret' AND c.generation = ledger_head.generation
);

DELETE FROM projection_checkpoint WHERE projection = 'sys_secret';
