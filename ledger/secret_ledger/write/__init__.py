"""How events enter the log."""
