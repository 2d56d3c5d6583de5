"""migrate, generations list, generations purge."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

from anyio import to_thread
from cyclopts import App, Parameter

from ledger.cli.asking import confirm
from ledger.cli.opening import look, opened
from ledger.cli.options import DEFAULTS, Actor, Common, Yes, actor_of, examples, register
from ledger.cli.output import Columns, Output, each, facts
from ledger.cli.usage import UsageError
from ledger.cli.verifying import progress

if TYPE_CHECKING:
    from ledger.generations import PurgeReport
    from ledger.migration import MigrationReport

__all__ = ["add_to"]

_GENERATION: Final = Columns(
    all=("generation", "state", "position", "opened_at", "closed_at", "needs", "bytes", "keys"),
    shown=("generation", "state", "position", "opened_at", "closed_at", "needs", "bytes"),
)


def add_to(app: App) -> None:
    """Register these verbs."""
    register(app, migrate, "secret-ledger migrate --dry-run", "secret-ledger migrate")
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
    dry_run: Annotated[
        bool,
        Parameter(negative=(), show_default=False, help="Read all, write nothing, and say."),
    ] = False,
    abandon: Annotated[
        bool,
        Parameter(negative=(), show_default=False, help="Throw a half-made migration away."),
    ] = False,
    force_reason: Annotated[
        str | None,
        Parameter(help="Rotate first although live nodes can't read the key; kept in the log."),
    ] = None,
    actor: Actor = None,
    common: Common = DEFAULTS,
) -> None:
    """Replay the whole history under the active key into the next generation, and use that.

    Online: nodes go on, and follow. A key that is configured and not active yet is rotated to
    first. Interrupted, run it again. The old generation needs its keys until it is purged.
    Fields in a pipe: `migrated`, `would migrate` or `nothing to do`, generation, the one it
    replaces, key id, fingerprint, events, copied by this run, carried without data, bytes,
    seconds, seconds that writers waited.
    """
    if dry_run and abandon:
        raise UsageError("--dry-run and --abandon exclude each other")
    output = Output(common.json)
    if abandon:
        async with opened(common, output) as ledger:
            with progress(output, "abandon") as tell:
                dropped = await ledger.abandon_migration(on_progress=tell)
        _show_purge(output, "abandoned", dropped)
        return
    async with opened(common, output, read_only=dry_run) as ledger:
        with progress(output, "migrate") as tell:
            done = await ledger.migrate(
                dry_run=dry_run,
                actor=actor_of(actor),
                force_reason=force_reason,
                on_progress=tell,
            )
    _show(output, done)


def _show(output: Output, done: MigrationReport) -> None:
    known = facts(done)
    if output.as_json:
        output.document(known)
        return
    word = "nothing to do"
    if done.changed:
        word = "would migrate" if done.dry_run else "migrated"
    if not sys.stdout.isatty():
        columns = (
            "generation", "replaced", "key_id", "key_fingerprint", "events", "copied", "purged",
            "bytes", "seconds", "locked_seconds",
        )  # fmt: skip
        output.line(word, *(known[column] for column in columns))
    elif not done.changed:
        print(f"nothing to do: all {done.events:,} events lie under {done.key_id} already")
    elif done.dry_run:
        print(
            f"would seal {done.events:,} events again under {done.key_id} into generation"
            f" {done.generation}: about {done.bytes / 1e6:,.1f} MB more, {done.seconds:,.0f} s"
        )
        print(f"  {done.purged:,} of them without their data, which nobody may read any more")
        print("  nothing was written")
    else:
        print(
            f"generation {done.generation} is in use: {done.events:,} events under"
            f" {done.key_id}; writers waited {done.locked_seconds * 1000:,.0f} ms"
        )
        print(
            f"  generation {done.replaced} is kept, and needs its keys, until:"
            f" secret-ledger generations purge {done.replaced}"
        )


async def list_(*, common: Common = DEFAULTS) -> None:
    """Every generation there ever was: state, times, size, and the keys it needs.

    Needs no key; without one, it is marked unverified. Fields in a pipe: generation, state,
    position of its end, times it was opened and closed, ids of the keys that it needs (JSON),
    bytes, what lies under which key (JSON).
    """
    output = Output(common.json)
    async with look(common, output) as seen:
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

    What was there is said in the control stream before: counts, and a hash over all of it.
    Interrupted, run it again. Fields in a pipe: `purged` or `nothing to do`, generation, rows
    deleted.
    """
    output = Output(common.json)
    if not yes:
        question = f"This deletes generation {generation} for good. Its number again: "
        ask = partial(confirm, "generations purge", question, str(generation))
        await to_thread.run_sync(ask, abandon_on_cancel=True)
    async with opened(common, output) as ledger:
        with progress(output, f"purge {generation}") as tell:
            done = await ledger.purge_generation(
                generation, actor=actor_of(actor), on_progress=tell
            )
    _show_purge(output, "purged", done)


def _show_purge(output: Output, word: str, done: PurgeReport) -> None:
    if output.as_json:
        output.document(facts(done))
    elif not sys.stdout.isatty():
        output.line(word if done.changed else "nothing to do", done.generation, done.deleted)
    elif done.changed:
        print(f"{word} generation {done.generation}: {done.deleted:,} rows deleted")
    else:
        print("nothing to do")
