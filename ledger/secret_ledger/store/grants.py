"""The rights that a role needs on a ledger in PostgreSQL, as SQL for its owner to run."""

from __future__ import annotations

from importlib.resources import files

from secret_ledger.store.identifiers import quoted, role_name, schema_name

__all__ = ["grants"]


def grants(role: str, *, schema: str | None = None, read_only: bool = False) -> str:
    """The script that gives `role` the rights it needs, and takes all further rights from it.

    `read_only`: the rights of a reader, else of a service at run time. Raises InvalidName if the
    role or the schema can't have its name.
    """
    kind = "reader.sql" if read_only else "runtime.sql"
    folder = files("secret_ledger.store.postgresql") / "sql" / "roles"
    script = (folder / kind).read_text(encoding="utf-8")
    inside = quoted(schema_name(schema))
    # The role comes last: its name is free text, and may look like a placeholder.
    script = script.replace("{schema}", inside).replace("{s}", f"{inside}.")
    return script.replace("{role}", quoted(role_name(role)))
