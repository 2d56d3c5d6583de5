"""The databases: units of work, their SQL, and how SQLite and PostgreSQL differ."""
