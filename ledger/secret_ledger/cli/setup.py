"""How a ledger begins, how its schema is upgraded, who may use it: init, schema upgrade|grants."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from cyclopts import App, Parameter

from secret_ledger.cli.opening import database_url, keyring
from secret_ledger.cli.options import DEFAULTS, Common, examples, register
from secret_ledger.cli.output import Output

__all__ = ["add_to"]


def add_to(app: App) -> None:
    """Register these verbs."""
    register(
        app,
        init,
        "secret-ledger init >> service.env",
        'eval "$(secret-ledger init --shell)"',
    )
    family = App(
        name="schema",
        help="The tables that the ledger lies in.",
        version_flags=[],
        help_epilogue=examples(),
    )
    register(family, upgrade)
    register(
        family,
        grants,
        'secret-ledger schema grants --role app | psql "$OWNER_URL"',
        'secret-ledger schema grants --role auditor --read-only | psql "$OWNER_URL"',
    )
    app.command(family)


async def init(
    *,
    shell: Annotated[
        bool,
        Parameter(
            negative=(), show_default=False, help="Print the line as a shell takes it, with export."
        ),
    ] = False,
    common: Common = DEFAULTS,
) -> None:
    """Make a ledger, also beside an application's own tables, and print the line that pins it.

    The line is NAME=value, as systemd, Docker and .env files take it. If the database holds a
    ledger already, `init` passes its gate and changes nothing.
    """
    from secret_ledger.opening import init_ledger, machine_warnings

    output = Output(common.json)
    url = database_url(common)
    ledger_id, created = await init_ledger(url, keyring(), schema=common.schema)
    for warning in machine_warnings(url):
        output.warning(warning)
    pin = f"OS_SECRET_LEDGER_ID={ledger_id}"
    if output.as_json:
        output.document({"ledger_id": ledger_id, "created": created, "setting": pin})
        return
    if created:
        output.note(
            f"made ledger {ledger_id}; give every node the setting on stdout, which pins it"
        )
    else:
        output.note(f"ledger {ledger_id} was there already; nothing was changed")
    print(f"export {pin}" if shell else pin)


async def upgrade(*, common: Common = DEFAULTS) -> None:
    """Upgrade an older schema to this release's. Make a backup first.

    The gate must pass before anything changes. If the triggers that keep the log append-only
    are disabled, for example by a restored dump, this puts them back too. Prints the names of
    the applied files.
    """
    from secret_ledger.opening import upgrade_schema

    output = Output(common.json)
    url = database_url(common)
    applied = await upgrade_schema(url, keyring(), schema=common.schema)
    if output.as_json:
        output.document({"applied": applied})
        return
    for name in applied:
        output.line(name)
    if not applied:
        output.note("the schema is up to date; there was nothing to do")
    elif sys.stderr.isatty():
        output.note("the schema is up to date now; no secret was touched")


async def grants(
    *,
    role: Annotated[str, Parameter(help="The role of PostgreSQL that gets the rights.")],
    read_only: Annotated[
        bool,
        Parameter(negative=(), show_default=False, help="Give only the rights to read."),
    ] = False,
    common: Common = DEFAULTS,
) -> None:
    """Print the SQL that gives a role of PostgreSQL the rights it needs, and no others.

    Connects to no database. The owner of the schema runs the SQL after `init`, and again after
    every `schema upgrade`. The role must exist.
    """
    from secret_ledger.config.environment import ledger_schema
    from secret_ledger.store.grants import grants as script

    output = Output(common.json)
    sql = script(role, schema=ledger_schema(common.schema, os.environ), read_only=read_only)
    if output.as_json:
        output.document({"role": role, "sql": sql})
    else:
        print(sql, end="")
