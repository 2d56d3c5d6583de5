"""What proves the log: whole, its newest events, or what is new."""
