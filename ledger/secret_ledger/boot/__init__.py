"""Opening: the gate, making a new ledger, upgrading an older one."""
