"""The knowledge of an open ledger: its standing, and whether the log is still the same log."""
