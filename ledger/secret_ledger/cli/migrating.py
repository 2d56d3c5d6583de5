"""migrate, here or into another database; generations list, generations purge."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

from anyio import to_thread
from cyclopts import App, Parameter

from secret_ledger.cli.asking import confirm
from secret_ledger.cli.opening import look, opened
from secret_ledger.cli.options import (
    DEFAULTS,
    Actor,
    Common,
    Moved,
    Yes,
    actor_of,
    examples,
    register,
)
from secret_ledger.cli.output import Columns, Output, each, facts
from secret_ledger.cli.usage import UsageError
from secret_ledger.cli.verifying import progress
from secret_ledger.errors import LedgerMoved

if TYPE_CHECKING:
    from secret_ledger.generations.migration import MigrationReport
    from secret_ledger.generations.purge import PurgeReport

__all__ = ["add_to"]

_GENERATION: Final = Columns(
    all=("generation", "state", "position", "opened_at", "closed_at", "needs", "bytes", "keys"),
    shown=("generation", "state", "position", "opened_at", "closed_at", "needs", "bytes"),
)


def add_to(app: App) -> None:
    """Register these verbs."""
    register(
        app,
        migrate,
        "secret-ledger migrate --dry-run",
        "secret-ledger migrate",
        "OS_SECRET_LEDGER_TARGET_URL_FILE=new.url secret-ledger migrate",
        "secret-ledger migrate --to sqlite+aiosqlite:////srv/new.db",
    )
    family = App(
        name="generations",
        help="The copies of the history: the one in use, and what migrations left.",
        version_flags=[],
        help_epilogue=examples(),
    )
    register(family, list_, name="list")
    register(family, purge, "secret-ledger generations purge 0")
    app.command(family)


async def migrate(
    *,
    to: Annotated[
        str | None,
        Parameter(
            name="--to",
            help="Move the ledger into this empty database. Default: OS_SECRET_LEDGER_TARGET_URL"
            " (or its _FILE). Put a URL with a password there: others can see an argument.",
        ),
    ] = None,
    to_schema: Annotated[
        str | None,
        Parameter(help="PostgreSQL's schema in the new database. Default: this ledger's schema."),
    ] = None,
    dry_run: Annotated[
        bool,
        Parameter(
            negative=(),
            show_default=False,
            help="Read all, write nothing, and print what would be done.",
        ),
    ] = False,
    abandon: Annotated[
        bool,
        Parameter(
            negative=(),
            show_default=False,
            help="Throw an unfinished migration away. If --to names the target of a move: there"
            " too.",
        ),
    ] = False,
    force_reason: Annotated[
        str | None,
        Parameter(
            help="Rotate first, even if live nodes can't read the key. The reason is kept"
            " in the log."
        ),
    ] = None,
    actor: Actor = None,
    common: Common = DEFAULTS,
) -> None:
    """Copy the whole history under the active key into the next generation, and put it in use.

    Online: nodes go on, and follow. If the configured key is pending, `migrate` first rotates
    to it, once nothing else refuses. If interrupted, run it again, also if a new key came
    since. The old generation needs its keys until it is purged.

    With --to, the ledger moves into another database, also under the same key. Nodes write here
    until the hand-over, and only read here after it: then give each node the new URL. If
    interrupted, run it again with the same --to.

    Fields in a pipe: `migrated`, `moved`, `would migrate`, `would move` or `nothing to do`,
    generation, replaced generation, key id, fingerprint, events, events copied by this run,
    events carried without data, bytes, seconds, seconds that writers waited, new database.
    """
    if dry_run and abandon:
        raise UsageError("--dry-run and --abandon exclude each other")
    output = Output(common.json)
    target = _target(to)
    if abandon:
        async with opened(common, output) as ledger:
            with progress(output, "abandon") as tell:
                dropped = await ledger.abandon_migration(
                    target, target_schema=to_schema, on_progress=tell
                )
        _show_purge(output, "abandoned", dropped)
        return

    async def run(*, read_only: bool, read_moved: bool = False) -> MigrationReport:
        async with opened(common, output, read_only=read_only, read_moved=read_moved) as ledger:
            with progress(output, "migrate") as tell:
                return await ledger.migrate(
                    target,
                    target_schema=to_schema,
                    dry_run=dry_run,
                    actor=actor_of(actor),
                    force_reason=force_reason,
                    on_progress=tell,
                )

    try:
        done = await run(read_only=dry_run)
    except LedgerMoved:
        if target is None:
            raise
        # An earlier run made the hand-over: this run finishes the move at the target.
        done = await run(read_only=True, read_moved=True)
    _show(output, done)


def _target(to: str | None) -> str | None:
    from secret_ledger.config.settings import LEDGER_TARGET_URL, setting

    if to is None:
        return setting(os.environ, LEDGER_TARGET_URL)
    if not to.strip():
        raise UsageError(
            "--to names no database",
            hint="a substitution may have failed; give --to a URL, or leave --to out",
        )
    return to


def _show(output: Output, done: MigrationReport) -> None:
    known = facts(done)
    if done.moved_to is not None and not done.dry_run:
        output.note(
            f"the ledger is at {done.moved_to} now; set OS_SECRET_LEDGER_URL to that database on"
            " every node; the ledger here can only be read, and still needs its keys"
        )
    if output.as_json:
        output.document(known)
        return
    moved = done.moved_to is not None
    word = "nothing to do"
    if done.changed and done.dry_run:
        word = "would move" if moved else "would migrate"
    elif done.changed:
        word = "moved" if moved else "migrated"
    if not sys.stdout.isatty():
        columns = (
            "generation", "replaced", "key_id", "key_fingerprint", "events", "copied", "purged",
            "bytes", "seconds", "locked_seconds", "moved_to",
        )  # fmt: skip
        output.line(word, *(known[column] for column in columns))
    elif not done.changed and moved:
        print(f"nothing to do: the ledger moved to {done.moved_to} before")
    elif not done.changed:
        print(f"nothing to do: all {done.events:,} events lie under {done.key_id} already")
    elif done.dry_run:
        print(
            f"would seal {done.events:,} events again under {done.key_id} into generation"
            f" {done.generation}{f' at {done.moved_to}' if moved else ''}:"
            f" about {done.bytes / 1e6:,.1f} MB more, {done.seconds:,.0f} s"
        )
        print(f"  {done.purged:,} of them without their data, which nobody may read any more")
        print("  nothing was written")
    else:
        print(
            f"generation {done.generation} is in use{f' at {done.moved_to}' if moved else ''}:"
            f" {done.events:,} events under {done.key_id};"
            f" writers waited {done.locked_seconds * 1000:,.0f} ms"
        )
        if moved:
            return
        print(
            f"  generation {done.replaced} is kept and still needs its keys; to delete it:"
            f" secret-ledger generations purge {done.replaced}"
        )


async def list_(*, moved: Moved = False, common: Common = DEFAULTS) -> None:
    """List every generation so far: its state, times, size, and the keys that it needs.

    Needs no key; without a key, the list is marked unverified. Fields in a pipe: generation,
    state, position of its end, times at which it was opened and closed, ids of the keys that it
    needs (JSON), bytes, rows under each key (JSON).
    """
    output = Output(common.json)
    async with look(common, output, read_moved=moved) as seen:
        await output.rows(
            "generations",
            _GENERATION,
            each(await seen.ledger.generations()),
            ledger_id=seen.ledger.ledger_id,
            verified=seen.verified,
        )


async def purge(
    generation: Annotated[int, Parameter(name="N", help="A closed generation's number.")],
    /,
    *,
    actor: Actor = None,
    yes: Yes = False,
    common: Common = DEFAULTS,
) -> None:
    """Delete a closed generation, so that nothing needs its keys any more.

    The control stream first records the generation: counts, and a hash over all of its rows. If
    interrupted, run it again. Fields in a pipe: `purged` or `nothing to do`, generation, rows
    deleted.
    """
    output = Output(common.json)
    if not yes:
        question = f"This deletes generation {generation} for good. Type its number again: "
        ask = partial(confirm, "generations purge", question, str(generation))
        await to_thread.run_sync(ask, abandon_on_cancel=True)
    async with opened(common, output) as ledger:
        with progress(output, f"purge {generation}") as tell:
            done = await ledger.purge_generation(
                generation, actor=actor_of(actor), on_progress=tell
            )
    _show_purge(output, "purged", done)


def _show_purge(output: Output, word: str, done: PurgeReport) -> None:
    if done.left_at is not None:
        output.note(
            f"the unfinished copy at {done.left_at} is still there; to delete it: secret-ledger"
            " migrate --abandon --to URL, with the URL of that database"
        )
    if output.as_json:
        output.document(facts(done))
    elif not sys.stdout.isatty():
        output.line(word if done.changed else "nothing to do", done.generation, done.deleted)
    elif done.changed:
        print(f"{word} generation {done.generation}: {done.deleted:,} rows deleted")
    else:
        print("nothing to do")
