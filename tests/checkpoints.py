"""Where the checkpoint of sys_secret lies, for tests that edit it as an administrator could."""

from __future__ import annotations

from inside import Database

__all__ = ["spelt", "spelt_for"]


def spelt(database: Database, sql: str) -> str:
    """As `spelt_for`, in the database's own schema."""
    return spelt_for(database.name, sql, database.statements.prefix)


def spelt_for(dialect: str, sql: str, prefix: str = "") -> str:
    """`sql` with `{checkpoints}` for the table, `{checkpoint}` for the column, and
    `{forget_checkpoints}` for a statement that may be followed by a condition."""
    table, column = f"{prefix}projection_checkpoint", "position"
    forget = f"DELETE FROM {table}"  # noqa: S608  # names of ours
    if dialect.startswith("sqlite"):
        table, column = "ledger_head", "sys_secret_position"
        forget = f"UPDATE {table} SET {column} = NULL"  # noqa: S608  # names of ours
    names = {"{checkpoints}": table, "{checkpoint}": column, "{forget_checkpoints}": forget}
    for name, spelling in names.items():
        sql = sql.replace(name, spelling)
    return sql
