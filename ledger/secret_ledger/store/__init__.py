"""Where the log lies: one code path, two dialects."""
