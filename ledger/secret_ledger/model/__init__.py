"""The parts of the log: events, their bytes, keys, names, the control stream. No I/O."""
