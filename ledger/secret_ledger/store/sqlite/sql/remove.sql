-- All that the numbered files make, taken out again: for the target of a move that is abandoned.

DROP VIEW IF EXISTS sys_secret;

DROP TABLE IF EXISTS projection_checkpoint;

DROP TABLE IF EXISTS secret_current;

DROP TABLE IF EXISTS ledger_wrap;

DROP TABLE IF EXISTS ledger_attestation;

DROP TABLE IF EXISTS ledger_move;

DROP TABLE IF EXISTS ledger_node;

DROP TABLE IF EXISTS secret_event;

DROP TABLE IF EXISTS ledger_key;

DROP TABLE IF EXISTS ledger_head;

DROP TABLE IF EXISTS ledger_meta;
