"""How a ledger begins, and how its schema moves on: init, schema upgrade."""

from __future__ import annotations

import sys

from cyclopts import App

from ledger.cli.opening import database_url, keyring
from ledger.cli.options import DEFAULTS, Common, examples, register
from ledger.cli.output import Output

__all__ = ["add_to"]


def add_to(app: App) -> None:
    """Register these verbs."""
    register(app, init, "secret-ledger init >> service.env")
    family = App(
        name="schema",
        help="The tables that the ledger lies in.",
        version_flags=[],
        help_epilogue=examples(),
    )
    register(family, upgrade)
    app.command(family)


async def init(*, common: Common = DEFAULTS) -> None:
    """Make a ledger, also beside an application's own tables, and print the line that pins it.

    Where there is a ledger already, its gate is passed and nothing is changed.
    """
    from ledger.opening import init_ledger

    output = Output(common.json)
    url = database_url(common)
    ledger_id, created = await init_ledger(url, keyring(), schema=common.schema)
    pin = f"export OS_SECRET_LEDGER_ID={ledger_id}"
    if output.as_json:
        output.document({"ledger_id": ledger_id, "created": created, "export": pin})
        return
    if created:
        output.note(f"made ledger {ledger_id}; the line on stdout pins it, on every node")
    else:
        output.note(f"ledger {ledger_id} was there already; nothing was changed")
    print(pin)


async def upgrade(*, common: Common = DEFAULTS) -> None:
    """Bring an older schema up to this release's, after a backup. The gate passes first.

    Prints the names of the applied files.
    """
    from ledger.opening import upgrade_schema

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
