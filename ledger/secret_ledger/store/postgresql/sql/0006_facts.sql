-- What the first release needs beside the facts that its events seal.

-- Wrapped root keys: the ciphertexts that the control stream names by key and SHA-256. Nothing
-- here is proven, so a row that no opened event names counts for nothing. The key may not be
-- introduced yet, so no foreign key holds it. A row can be deleted, and is never changed.
CREATE TABLE {s}ledger_wrap (
    key_fingerprint bytea NOT NULL CHECK (length(key_fingerprint) = 32),
    wrap_hash       bytea NOT NULL CHECK (length(wrap_hash) = 32),
    wrapped         bytea NOT NULL CHECK (length(wrapped) >= 1 AND length(wrapped) <= 8192),
    PRIMARY KEY (key_fingerprint, wrap_hash)
);

-- Ciphertexts do not compress.
ALTER TABLE {s}ledger_wrap ALTER COLUMN wrapped SET STORAGE EXTERNAL;

-- What proves that a holder of a key wrote a node's line (ledger.node_proof). NULL for a refused
-- boot, which proves nothing.
ALTER TABLE {s}ledger_node ADD COLUMN proof bytea;
