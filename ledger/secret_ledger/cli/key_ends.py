"""keys retire, keys lost: how a key ends."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

from anyio import to_thread
from cyclopts import App, Parameter

from secret_ledger.cli.asking import confirm
from secret_ledger.cli.opening import opened
from secret_ledger.cli.options import DEFAULTS, Actor, Common, Yes, actor_of, register
from secret_ledger.cli.output import Output, facts
from secret_ledger.cli.verifying import progress

if TYPE_CHECKING:
    from secret_ledger.rotation.retirement import KeyEnd

__all__ = ["add_to"]

KeyId = Annotated[str, Parameter(name="KEY_ID", help="The key's id, as `keys status` shows it.")]


def add_to(family: App) -> None:
    """Register these verbs in the family of `keys`."""
    register(family, retire, "secret-ledger keys retire k-2025")
    register(family, lost, "secret-ledger keys lost k-2024 --reason 'the backup tape is gone'")


async def retire(key_id: KeyId, /, *, actor: Actor = None, common: Common = DEFAULTS) -> None:
    """Certify that nothing needs a superseded key any more, so that every node can drop it.

    Exit 18 while any event needs the key: the error names the places and the way on. Fields in
    a pipe: `retired` or `was retired`, key id, fingerprint, events, secrets, nodes that still
    hold the key.
    """
    output = Output(common.json)
    async with opened(common, output) as ledger:
        with progress(output, f"retire {key_id}") as tell:
            done = await ledger.retire(key_id, actor=actor_of(actor), on_progress=tell)
    if output.as_json:
        output.document(facts(done))
        return
    _line(output, "retired" if done.changed else "was retired", done)
    if sys.stdout.isatty():
        for node in done.nodes:
            print(f"  node {node} still holds the key: remove the key from its settings")


async def lost(
    key_id: KeyId,
    /,
    *,
    reason: Annotated[str, Parameter(help="The reason; it is kept in the log.")],
    actor: Actor = None,
    yes: Yes = False,
    common: Common = DEFAULTS,
) -> None:
    """Give up a superseded key that nobody has any more.

    Without --yes it first counts the secrets and events that go with the key, and asks. A
    secret whose newest event lies under the key is destroyed. Other secrets lose only their
    versions under the key. Then boot, `put`, rekey and migrate go on without the key. Nothing
    undoes that. Fields in a pipe: `lost` or `was lost`, key id, fingerprint, events, secrets,
    nodes that hold the key.
    """
    output = Output(common.json)
    async with opened(common, output) as ledger:
        goes = await ledger.loss(key_id)
        if goes.changed and not yes:
            _tell(goes)
            ask = partial(confirm, "keys lost", "The key id again: ", key_id)
            await to_thread.run_sync(ask, abandon_on_cancel=True)
        with progress(output, f"give up {key_id}") as tell:
            done = await ledger.lost(key_id, reason=reason, actor=actor_of(actor), on_progress=tell)
    if output.as_json:
        output.document(facts(done))
    else:
        _line(output, "lost" if done.changed else "was lost", done)


def _tell(goes: KeyEnd) -> None:
    events = sum(use.events for use in goes.uses)
    print(
        f"With {goes.key_id}, {goes.secrets:,} secrets end, because their latest version lies"
        f" under it. In all, {events:,} events are lost. This can't be undone.",
        file=sys.stderr,
    )
    for node in goes.nodes:
        print(f"But this live node says that it holds the key: {node}", file=sys.stderr)


def _line(output: Output, word: str, end: KeyEnd) -> None:
    events = sum(use.events for use in end.uses)
    if sys.stdout.isatty():
        print(f"{word}: {end.key_id}; {end.secrets:,} secrets, {events:,} events were under it")
        return
    output.line(
        word, end.key_id, end.key_fingerprint.hex(), events, end.secrets, ", ".join(end.nodes)
    )
