"""Who has the ledger open, and whether a service could work."""
