"""Rules: which rows to believe, and which writes to accept. Pure functions of rows."""
