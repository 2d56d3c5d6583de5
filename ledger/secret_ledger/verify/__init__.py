"""Verification: of the whole log, of its newest events, or of the new events alone."""
