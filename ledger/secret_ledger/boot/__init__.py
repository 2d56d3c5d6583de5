"""Opening a ledger: the boot gate, a new ledger, the upgrade of an older ledger, other keys."""
