"""Keys: keygen, keys status, keys rotate, keys rekey; adds `key_audit` and `key_ends`."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from secret_ledger.cli import key_audit, key_ends
from secret_ledger.cli.opening import look, opened
from secret_ledger.cli.options import DEFAULTS, Actor, Common, Moved, actor_of, examples, register
from secret_ledger.cli.output import Columns, Output, each, facts, visible
from secret_ledger.cli.verifying import FINDING, finding_lines, progress

__all__ = ["add_to"]

_KEY: Final = Columns(
    all=(
        "key_id", "key_fingerprint", "state", "held", "epoch", "introduced", "activated",
        "activated_at", "events", "age_seconds",
    ),
    shown=("key_id", "key_fingerprint", "state", "held", "epoch", "activated_at", "events"),
)  # fmt: skip


def add_to(app: App) -> None:
    """Register these verbs."""
    register(
        app,
        keygen,
        "export OS_SECRET_KEY=$(secret-ledger keygen)",
        "secret-ledger keygen --file os-secret-key",
    )
    family = App(name="keys", help="The ledger's keys.", version_flags=[], help_epilogue=examples())
    register(family, status)
    register(
        family,
        rotate,
        "secret-ledger keygen --file new-key    # keep a copy of it first",
        "export OS_SECRET_PREVIOUS_KEYS=$OS_SECRET_KEY OS_SECRET_KEY=$(cat new-key)",
        "secret-ledger keys rotate",
    )
    register(family, rekey)
    key_audit.add_to(family)
    key_ends.add_to(family)
    app.command(family)


async def keygen(
    *,
    id_: Annotated[
        str | None,
        Parameter(name="--id", help="A label for it, to be set as OS_SECRET_KEY_ID beside it."),
    ] = None,
    file: Annotated[
        Path | None,
        Parameter(help="Write it to this new file (mode 0600), for OS_SECRET_KEY_FILE."),
    ] = None,
    common: Common = DEFAULTS,
) -> None:
    """Make a new root key and print it. It is stored nowhere: keep a copy in a safe place.

    With --file the key goes into a file that only its owner can read, and not to stdout. An
    existing file is never overwritten.
    """
    from secret_ledger.config.key_files import write_key_file
    from secret_ledger.model.keys import Key

    output = Output(common.json)
    key = Key.generate(id_)
    made = None if file is None else write_key_file(file, key)
    if made is not None:
        if output.as_json:
            output.document({"file": str(made), "key_id": key.key_id})
    elif output.as_json:
        output.document({"key": key.text().reveal_text(), "key_id": key.key_id})
    else:
        print(key.text().reveal_text())
    if made is None:
        _warn_of_readers(output)
    if sys.stderr.isatty():
        if made is not None:
            output.note(f"export OS_SECRET_KEY_FILE={shlex.quote(str(made))}")
        output.note(
            "keep a copy of the key in a safe place: without the key, nobody can open what"
            " it has sealed"
        )
        if key.key_id is not None:
            output.note(f"export OS_SECRET_KEY_ID={shlex.quote(key.key_id)}")


def _warn_of_readers(output: Output) -> None:
    from secret_ledger.config.key_files import open_to_others

    with suppress(OSError, ValueError):  # stdout is closed, or no file of the system
        mode = os.fstat(sys.stdout.fileno()).st_mode
        if stat.S_ISREG(mode) and open_to_others(mode):
            output.warning(
                f"stdout is a file that others can read (mode {stat.S_IMODE(mode):04o}), and the"
                " ledger refuses such a key file: chmod 600 the file, or make it with secret-ledger"
                " keygen --file FILE"
            )


async def status(
    *,
    warn_days: Annotated[
        float, Parameter(help="Warn if the active key is older than this many days.")
    ] = 365.0,
    warn_events: Annotated[
        int, Parameter(help="Warn if more events lie under the active key. The bound is 2^32.")
    ] = 2**31,
    moved: Moved = False,
    common: Common = DEFAULTS,
) -> None:
    """List each key of the ledger: its state, and whether it is held here.

    A key is active, superseded, retired, lost or pending. Needs no key; without a key, the list
    is marked unverified. If the active key is due for rotation, a line on stderr warns; the
    ledger never rotates by itself. Fields in a pipe: key id, fingerprint, state, held, epoch,
    position of its introduction, position and time of its activation, events and age in seconds
    (only of the active key).
    """
    from secret_ledger.nodes.health import rotation_due

    output = Output(common.json)
    async with look(common, output, read_moved=moved) as seen:
        keys = await seen.ledger.key_status()
        await output.rows(
            "keys", _KEY, each(keys), ledger_id=seen.ledger.ledger_id, verified=seen.verified
        )
    due = rotation_due(keys, days=warn_days, events=warn_events)
    if due is not None:
        output.warning(f"{due}: rotate to a new key: secret-ledger keys rotate")


async def rotate(
    *,
    force_reason: Annotated[
        str | None,
        Parameter(
            help="Rotate even if live nodes can't read the key. The reason is kept in the log."
        ),
    ] = None,
    actor: Actor = None,
    common: Common = DEFAULTS,
) -> None:
    """Make the configured key the active key, under which new events are sealed.

    On every node, OS_SECRET_KEY must hold the new key and OS_SECRET_PREVIOUS_KEYS the active
    key. Else the error names the nodes that lack the new key, exit 41. Nothing is re-encrypted.
    If the key is active already, the command says so, exit 0. Fields in a pipe: `rotated` or
    `active`, key id, fingerprint, epoch, position and time of its activation, key id before it.
    Then a line for each other key under which secrets still lie: `behind`, key id, fingerprint,
    secrets, counts by the first segment of their names (JSON). Then a line for each unproven or
    stale node that lacks the key: `unproven`, node.
    """
    output = Output(common.json)
    async with opened(common, output) as ledger:
        done = await ledger.rotate(actor=actor_of(actor), force_reason=force_reason)
    if output.as_json:
        output.document(facts(done))
        return
    known = facts(done)
    if not sys.stdout.isatty():
        columns = ("key_id", "key_fingerprint", "epoch", "position", "activated_at", "replaced")
        output.line("rotated" if done.changed else "active", *(known[name] for name in columns))
        for count in known["behind"]:
            output.line("behind", *count.values())
        for node in done.unproven:
            output.line("unproven", node)
        return
    word = "rotated: new events use" if done.changed else "nothing to rotate: new events use"
    print(f"{word} {done.key_id} ({known['key_fingerprint'][:16]}…), from position {done.position}")
    for node in done.unready:
        print(f"  fenced until it has the key: {visible(node)}")
    for node in done.unproven:
        print(f"  lacks the key, says a line that no key proves: {visible(node)}")
    for count in done.behind:
        print(
            f"  {count.secrets:,} secrets still have their latest event under {count.key_id}:"
            " secret-ledger keys rekey"
        )


async def rekey(*, actor: Actor = None, common: Common = DEFAULTS) -> None:
    """Seal the newest event of every secret again under the active key.

    Online. If interrupted, run it again. Older versions stay under their keys. If secrets can't
    be opened, the command names them, leaves them as they were, and exits with 30. Fields in a
    pipe: `rekeyed`, key id, fingerprint, secrets rekeyed, secrets already under the key,
    secrets skipped, seconds. Then a line for each skipped secret: `finding` and its fields, as
    for `verify`.
    """
    output = Output(common.json)
    async with opened(common, output) as ledger:
        with progress(output, "rekey") as tell:
            done = await ledger.rekey(actor=actor_of(actor), on_progress=tell)
    known = facts(done)
    if output.as_json:
        output.document({"ok": done.ok, **known})
    elif not sys.stdout.isatty():
        del known["findings"]
        output.line("rekeyed", *known.values())
        finding_lines(output, done.findings)
    else:
        rate = done.rekeyed / done.seconds if done.seconds else 0
        print(
            f"{done.rekeyed:,} secrets sealed again under {done.key_id} in {done.seconds:.2f} s"
            f" ({rate:,.0f}/s); {done.already:,} were under it already"
        )
        output.table(FINDING, done.findings)
    done.raise_if_not_ok()
