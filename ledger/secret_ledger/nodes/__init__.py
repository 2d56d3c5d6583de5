"""Which nodes have the ledger open, and whether a node could do its work."""
