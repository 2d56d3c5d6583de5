"""What the log is made of: events, their bytes, keys, names, the control stream. No I/O."""
