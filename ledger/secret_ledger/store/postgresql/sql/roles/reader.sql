-- For whoever only looks: read_only=True, list, history, nodes, verify, backups. Sealed values
-- open for nobody without a key. The schema's owner runs this: after `init`, and again after
-- every `schema upgrade`.

BEGIN;

GRANT USAGE ON SCHEMA {schema} TO {role};

REVOKE CREATE ON SCHEMA {schema} FROM {role};

REVOKE ALL ON
    {s}ledger_meta, {s}ledger_head, {s}ledger_key, {s}secret_event, {s}ledger_node,
    {s}secret_current, {s}projection_checkpoint, {s}sys_secret, {s}ledger_move,
    {s}ledger_attestation, {s}ledger_wrap
FROM {role};

GRANT SELECT ON
    {s}ledger_meta, {s}ledger_head, {s}ledger_key, {s}secret_event, {s}ledger_node,
    {s}secret_current, {s}projection_checkpoint, {s}sys_secret, {s}ledger_move,
    {s}ledger_attestation, {s}ledger_wrap
TO {role};

COMMIT;
