"""Secrets: put, get, list, history, delete, restore, destroy."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from secret_ledger.cli.asking import confirm
from secret_ledger.cli.checks import Check, Marked, opening, with_problems
from secret_ledger.cli.opening import database_url, keyring, look, opened
from secret_ledger.cli.options import (
    DEFAULTS,
    Actor,
    Common,
    Expect,
    Moved,
    Name,
    Yes,
    actor_of,
    moment,
    register,
)
from secret_ledger.cli.output import Columns, Output, facts, visible
from secret_ledger.cli.usage import UsageError

if TYPE_CHECKING:
    from secret_ledger.model.versions import SecretInfo

__all__ = ["add_to"]

_WRITTEN: Final = (
    "name", "version", "state", "event_type", "recorded_at", "actor",
    "key_id", "key_fingerprint", "position",
)  # fmt: skip
"""The fields of the version that a verb has written."""
_SECRET: Final = Columns(
    all=(*_WRITTEN, "sealed_at", "sealed_by", "check", "problem"),
    shown=("name", "version", "state", "recorded_at", "actor", "key_id", "check"),
)
_VERSION: Final = Columns(
    all=_SECRET.all,
    shown=(
        "version", "event_type", "recorded_at", "actor", "sealed_at", "sealed_by", "reason",
        "key_id", "check",
    ),
    unless_as=(("sealed_at", "recorded_at"), ("sealed_by", "actor")),  # alike unless re-encrypted
)  # fmt: skip


def add_to(app: App) -> None:
    """Register these verbs."""
    register(
        app,
        put,
        'printf %s "$PASSWORD" | secret-ledger put db/warehouse/password --expect 0',
        'secret-ledger put tls/www --file www.key --metadata \'{"ticket": "OPS-7"}\'',
    )
    register(
        app,
        get,
        "secret-ledger get db/warehouse/password > password.txt",
        "secret-ledger get db/warehouse/password --at 2026-01-31T12:00:00Z",
    )
    register(app, list_, "secret-ledger list db/ | cut -f1", name="list")
    register(app, history)
    register(app, delete)
    register(app, restore)
    register(app, destroy, "secret-ledger destroy db/old/password --reason 'left the provider'")


def put(
    name: Name,
    /,
    *,
    file: Annotated[Path | None, Parameter(help="Take the value from this file.")] = None,
    allow_empty: Annotated[
        bool,
        Parameter(
            negative=(),
            show_default=False,
            help="Accept a value that is empty or holds only line breaks.",
        ),
    ] = False,
    expect: Expect = None,
    actor: Actor = None,
    metadata: Annotated[
        str | None,
        Parameter(
            help="A JSON object to store with the version, at most 4 KiB. It is not encrypted."
        ),
    ] = None,
    common: Common = DEFAULTS,
) -> Coroutine[Any, Any, None]:
    """Write a secret: its first version, or its next version.

    The value comes from stdin, from --file, or from a prompt on a terminal, never from an
    argument. Its bytes are taken as they are, a last line break included. A value that is
    empty, or holds only line breaks, is refused without --allow-empty: the command before the
    pipe may have failed. If the database holds nothing at all, `put` makes a ledger, unless
    OS_SECRET_LEDGER_ID pins a ledger.
    """
    from secret_ledger.cli.values import read_value
    from secret_ledger.model.names import normalise_name

    output = Output(common.json)
    noted = _metadata(metadata)
    name = normalise_name(name)
    database_url(common)
    keys = keyring()  # wrong settings are reported before the user types a value
    # No event loop runs yet, so Ctrl-C ends the prompt at once.
    value = read_value(name, file, output, allow_empty=allow_empty)

    async def work() -> None:
        async with opened(common, output, create=True, keys=keys) as ledger:
            written = await ledger.put(
                name, value, expect=expect, actor=actor_of(actor), metadata=noted
            )
        _wrote(output, "wrote", written)

    return work()


async def get(
    name: Name,
    /,
    *,
    version: Annotated[int | None, Parameter(help="This version instead of the latest.")] = None,
    at: Annotated[
        str | None,
        Parameter(
            name="--at", help="The latest version at this time: 2026-01-31T12:00:00Z (ISO 8601)."
        ),
    ] = None,
    unproven: Annotated[
        bool,
        Parameter(
            help="With --version: if the newest event can't be opened, check only the seal of this"
            " version.",
            negative=(),
        ),
    ] = False,
    moved: Moved = False,
    common: Common = DEFAULTS,
) -> None:
    """Print a secret's value: its bytes as they are, with a line break on a terminal only.

    With --json, `value` holds the value if it is UTF-8 text, else `value_base64` does. The chain
    from the newest event proves an earlier version, so the newest event must open. If it can't,
    --unproven prints the version by its own seal. Nobody can tell then whether the version has
    ended since, and a line on stderr says so.
    """
    from secret_ledger.cli.values import write_value

    output = Output(common.json)
    if version is not None and at is not None:
        raise UsageError("--version and --at exclude each other", hint="give one of them")
    if unproven and version is None:
        raise UsageError("--unproven needs --version", hint="state the version")
    when = None if at is None else moment(at)
    async with opened(common, output, read_only=True, read_moved=moved) as ledger:
        found = await ledger.get(name, version=version, at=when, unproven=unproven)
    if not found.proven:
        output.warning(
            f"version {found.version} is unproven: the newest event of {found.name} can't be"
            " opened, so nobody can tell whether this version has ended since"
        )
    if not output.as_json:
        write_value(found.value)
        return
    raw = found.value.reveal()
    try:
        shown = {"value": raw.decode()}
    except UnicodeDecodeError:
        shown = {"value_base64": base64.b64encode(raw).decode()}
    output.document({**_info(found), **({} if found.proven else {"proven": False}), **shown})


async def list_(
    prefix: Annotated[
        str, Parameter(name="PREFIX", help="List only names that begin with this.")
    ] = "",
    /,
    *,
    all_: Annotated[
        bool,
        Parameter(
            name="--all",
            negative=(),
            show_default=False,
            help="List deleted and destroyed secrets too.",
        ),
    ] = False,
    check: Check = False,
    moved: Moved = False,
    common: Common = DEFAULTS,
) -> None:
    """List secrets, without their values. Needs no key.

    No row is opened, so each row says unverified; --check opens each row. Fields in a pipe:
    name, version, state, event type, time, actor, key id, fingerprint, position; when and by
    whom this version was sealed (a re-encryption seals it again); check, problem.
    """
    output = Output(common.json)
    async with look(common, output, read_moved=moved) as seen:
        ledger = seen.ledger
        rows = (
            opening(seen).list(prefix, deleted=all_, check=True)
            if check
            else ledger.list(prefix, deleted=all_)
        )
        marked = Marked(rows)
        await output.rows(
            "secrets",
            with_problems(_SECRET, check=check),
            marked,
            ledger_id=ledger.ledger_id,
            verified=check,
        )
    marked.raise_if_any_failed()


async def history(
    name: Name, /, *, check: Check = False, moved: Moved = False, common: Common = DEFAULTS
) -> None:
    """List the versions of a secret, oldest first: event, time, actor and key of each.

    Needs no key. No row is opened, so each row says unverified; --check opens each row. After a
    re-encryption, `recorded_at` and `actor` say when and by whom the value was written.
    `sealed_at` and `sealed_by` say when and by whom it was re-encrypted. Fields in a pipe: as
    for `list`.
    """
    output = Output(common.json)
    async with look(common, output, read_moved=moved) as seen:
        ledger = seen.ledger
        rows = opening(seen).history(name, check=True) if check else ledger.history(name)
        marked = Marked(rows)
        await output.rows(
            "versions",
            with_problems(_VERSION, check=check),
            marked,
            ledger_id=ledger.ledger_id,
            verified=check,
        )
    marked.raise_if_any_failed()


async def delete(
    name: Name, /, *, expect: Expect = None, actor: Actor = None, common: Common = DEFAULTS
) -> None:
    """Delete a secret. Its history is kept, and `restore` brings it back."""
    output = Output(common.json)
    async with opened(common, output) as ledger:
        done = await ledger.delete(name, expect=expect, actor=actor_of(actor))
    _wrote(output, "deleted", done)


async def restore(
    name: Name,
    /,
    *,
    version: Annotated[
        int | None, Parameter(help="The version to restore. Default: the last before the deletion.")
    ] = None,
    expect: Expect = None,
    actor: Actor = None,
    common: Common = DEFAULTS,
) -> None:
    """Bring a deleted secret back: an earlier value becomes its next version."""
    output = Output(common.json)
    async with opened(common, output) as ledger:
        done = await ledger.restore(name, version, expect=expect, actor=actor_of(actor))
    _wrote(output, "restored", done)


def destroy(
    name: Name,
    /,
    *,
    reason: Annotated[str, Parameter(help="The reason; it is kept in the log.")],
    actor: Actor = None,
    yes: Yes = False,
    common: Common = DEFAULTS,
) -> Coroutine[Any, Any, None]:
    """End a secret for good: none of its versions so far is ever returned again.

    Its sealed bytes stay until a migration leaves them out and the old generation is purged. If
    a row of a secret is damaged, `destroy` is a way out too. A later `put` starts anew.
    """
    output = Output(common.json)
    if not yes:
        confirm("destroy", f"This destroys {visible(name)} for good. Type its name again: ", name)

    async def work() -> None:
        async with opened(common, output) as ledger:
            done = await ledger.destroy(name, reason=reason, actor=actor_of(actor))
        _wrote(output, "destroyed", done)

    return work()


def _wrote(output: Output, did: str, info: SecretInfo) -> None:
    if output.as_json:
        output.document(_info(info))
    elif sys.stdout.isatty():
        print(f"{did} {visible(info.name)}: version {info.version}, under {info.key_id}")
    else:
        known = _info(info)
        output.line(*(known[column] for column in _WRITTEN))


def _info(info: SecretInfo) -> dict[str, Any]:
    """Returns the fields of SecretInfo only: a SecretVersion also holds the value."""
    from dataclasses import fields

    from secret_ledger.model.versions import SecretInfo

    known = {field.name: getattr(info, field.name) for field in fields(SecretInfo)}
    shown = facts(SecretInfo(**known))
    return {name: value for name, value in shown.items() if name not in ("check", "problem")}


def _metadata(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    raise UsageError(
        "--metadata takes a JSON object", hint="""such as --metadata '{"ticket": "OPS-7"}'"""
    )
