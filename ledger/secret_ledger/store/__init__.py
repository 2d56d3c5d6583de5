"""The databases: a unit of work, the SQL of it, and what differs between the two."""
