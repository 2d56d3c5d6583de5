-- For a service: all that it does with the ledger, rotating keys included. It adds events and
-- can neither change nor remove one. Migrating, purging a generation, upgrading the schema and
-- installing a projection are the work of the schema's owner, who runs this too: after `init`,
-- and again after every `schema upgrade`.

BEGIN;

GRANT USAGE ON SCHEMA {schema} TO {role};

REVOKE CREATE ON SCHEMA {schema} FROM {role};

REVOKE ALL ON
    {s}ledger_meta, {s}ledger_head, {s}ledger_key, {s}secret_event, {s}ledger_node,
    {s}secret_current, {s}projection_checkpoint, {s}sys_secret, {s}ledger_move,
    {s}ledger_attestation, {s}ledger_wrap
FROM {role};

GRANT SELECT ON {s}ledger_meta, {s}ledger_head, {s}ledger_move, {s}sys_secret TO {role};

-- Of a head row only what an append moves on: to open, close or purge a generation is to set
-- its state.
GRANT UPDATE (position, recorded_at, key_epoch) ON {s}ledger_head TO {role};

GRANT SELECT, INSERT ON {s}ledger_key, {s}secret_event TO {role};

GRANT SELECT, INSERT, UPDATE ON {s}projection_checkpoint TO {role};

GRANT SELECT, INSERT, UPDATE, DELETE ON {s}secret_current, {s}ledger_node TO {role};

GRANT SELECT, INSERT, DELETE ON {s}ledger_attestation, {s}ledger_wrap TO {role};

COMMIT;
