"""Keys: keygen, keys status."""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Final

from cyclopts import App, Parameter

from ledger.cli.opening import look
from ledger.cli.options import DEFAULTS, Common, examples, register
from ledger.cli.output import Columns, Output

__all__ = ["add_to", "each"]

_KEY: Final = Columns(
    all=(
        "key_id", "key_fingerprint", "state", "held", "epoch", "introduced", "activated",
        "activated_at", "events",
    ),
    shown=("key_id", "key_fingerprint", "state", "held", "epoch", "activated_at", "events"),
)  # fmt: skip


def add_to(app: App) -> None:
    """Register these verbs."""
    register(
        app,
        keygen,
        "export OS_SECRET_KEY=$(secret-ledger keygen)",
        "(umask 077; secret-ledger keygen > os-secret-key)",
    )
    family = App(name="keys", help="The ledger's keys.", version_flags=[], help_epilogue=examples())
    register(family, status)
    app.command(family)


async def keygen(
    *,
    id_: Annotated[
        str | None,
        Parameter(name="--id", help="A label for it, to be set as OS_SECRET_KEY_ID beside it."),
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Make a new root key and print it. It is kept nowhere: keep a copy in a safe place."""
    from ledger.keys import Key

    output = Output(common.json)
    key = Key.generate(id_)
    text = key.text().reveal_text()
    if output.as_json:
        output.document({"key": text, "key_id": key.key_id})
    else:
        print(text)
    if sys.stderr.isatty():
        output.note("keep a copy in a safe place: without it, nobody opens what it has sealed")
        if key.key_id is not None:
            output.note(f"export OS_SECRET_KEY_ID={shlex.quote(key.key_id)}")


async def status(*, common: Common = DEFAULTS) -> None:
    """Each key of the ledger: active, superseded, retired, lost or pending; and whether it is
    held here.

    Needs no key; without one, it is marked unverified. Fields in a pipe: key id, fingerprint,
    state, held, epoch, position of its introduction and of its activation, time of that,
    events (known of the active key).
    """
    output = Output(common.json)
    async with look(common, output) as seen:
        await output.rows(
            "keys",
            _KEY,
            each(await seen.ledger.key_status()),
            ledger_id=seen.ledger.ledger_id,
            verified=seen.verified,
        )


async def each(rows: Iterable[object]) -> AsyncIterator[object]:
    """A list in hand, as one that comes in."""
    for row in rows:
        yield row
