"""Keeps a host's Alembic away from the ledger's tables.

In the host's `env.py`::

    from secret_ledger.alembic import include_object

    context.configure(connection=connection, include_object=include_object, …)

Without it, `alembic revision --autogenerate` finds tables that the host's models don't know,
and writes a migration that drops them.
"""

from __future__ import annotations

from secret_ledger.store.schema import OUR_TABLES

__all__ = ["include_object"]


def include_object(
    object: object,  # noqa: A002  # Alembic's own parameter names
    name: str | None,
    type_: str,
    reflected: bool,
    compare_to: object | None,
) -> bool:
    """Alembic's hook: returns False for a table of the ledger that no model of the host declares.

    If the host has a hook of its own, join the two with `and`.
    """
    return not (type_ == "table" and reflected and compare_to is None and name in OUR_TABLES)
