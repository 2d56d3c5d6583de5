"""What an open ledger knows: its standing, and that the log is still the same one."""
