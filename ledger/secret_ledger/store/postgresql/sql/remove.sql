-- All that the numbered files make, taken out again: for the target of a move that is abandoned.
-- The schema stays: a DBA may have made it.

DROP VIEW IF EXISTS {s}sys_secret;

DROP TABLE IF EXISTS {s}projection_checkpoint;

DROP TABLE IF EXISTS {s}secret_current;

DROP TABLE IF EXISTS {s}ledger_wrap;

DROP TABLE IF EXISTS {s}ledger_attestation;

DROP TABLE IF EXISTS {s}ledger_move;

DROP TABLE IF EXISTS {s}ledger_node;

DROP TABLE IF EXISTS {s}secret_event;

DROP FUNCTION IF EXISTS {s}secret_event_append_only();

DROP TABLE IF EXISTS {s}ledger_key;

DROP TABLE IF EXISTS {s}ledger_head;

DROP TABLE IF EXISTS {s}ledger_meta;
