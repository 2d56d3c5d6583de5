"""Nodes: nodes, health."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from secret_ledger.cli.opening import Look, look
from secret_ledger.cli.options import DEFAULTS, Common, Moved, register
from secret_ledger.cli.output import Columns, Output, each, facts, text_of, visible
from secret_ledger.cli.rollout import Rollout, rollout
from secret_ledger.cli.usage import UsageError
from secret_ledger.errors import InsecureKeyFile, InvalidKey, LedgerError, NodeNotReady

__all__ = ["add_to"]

_NODE: Final = Columns(
    all=(
        "state", "node", "host", "pid", "release", "key_id", "key_fingerprint", "pending_id",
        "pending_fingerprint", "position", "refusals", "reason", "started_at", "last_seen",
        "differs", "heartbeat", "age", "proof",
    ),
    shown=(
        "state", "node", "pid", "key_id", "key_fingerprint", "pending_id", "position", "age",
        "refusals", "reason", "differs", "proof",
    ),
)  # fmt: skip
_LABELS: Final = {"reasons": "reason", "warnings": "warning", "differing": "differs"}
EVERY: Final = 2.0
"""Default seconds between two looks of --watch."""


def add_to(app: App) -> None:
    """Register these verbs."""
    register(
        app,
        nodes,
        "secret-ledger nodes --watch",
        "secret-ledger nodes --watch 5 --json | jq --unbuffered -c .keys",
    )
    register(app, health, "secret-ledger health --json | jq .ready")


async def nodes(
    *,
    watch: Annotated[
        list[float] | None,
        Parameter(
            negative=(),
            consume_multiple=True,
            show_default=False,
            help="Look again every SECONDS seconds (default 2), until Ctrl-C.",
        ),
    ] = None,
    moved: Moved = False,
    common: Common = DEFAULTS,
) -> None:
    """List the nodes that have the ledger open, each with its key, and the boots that were refused.

    Needs no key. Nodes write these lines themselves. With a key, `proof` says of each line:
    proven (a holder of a key wrote it), stale, unproven, or unknown. The line of a refused boot
    proves nothing. If a line is missing, that proves nothing either. Fields in a pipe: state,
    node, host, pid, release, key id, fingerprint, pending key id and fingerprint, position,
    refusals, reason, start, last seen, differs, seconds between heartbeats, seconds since the
    last heartbeat, proof.

    --watch follows a rollout: it also counts the live nodes that can read the active key and
    each pending key. In a pipe it prints a snapshot whenever anything has changed, other than
    positions and times. With --json a snapshot is one document in one line. Else it is a line
    for each key (active or pending, key id, fingerprint, live nodes that can read it, live
    nodes), a line for each node, and an empty line.
    """
    output = Output(common.json)
    every = _interval(watch)
    async with look(common, output, read_moved=moved) as seen:
        if every is not None:
            await _watch(seen, output, every, read_moved=moved)
        await output.rows(
            "nodes",
            _NODE,
            each(await seen.ledger.nodes()),
            ledger_id=seen.ledger.ledger_id,
            verified=seen.verified,
        )


def _interval(watch: Sequence[float] | None) -> float | None:
    if watch is None:
        return None
    every = watch[0] if watch else EVERY
    if len(watch) > 1 or not 0 < every < math.inf:
        raise UsageError(
            "--watch takes a number of seconds, more than 0",
            hint="secret-ledger nodes --watch 5",
        )
    return every


async def _watch(seen: Look, output: Output, every: float, *, read_moved: bool) -> None:
    from secret_ledger.cli.watching import Lines, ended_in_order, watch
    from secret_ledger.rules.gate import moved_error

    async def ask() -> Rollout:
        statuses = await seen.ledger.key_status()
        if seen.ledger.moved_to is not None and not read_moved:
            raise moved_error(seen.ledger.moved_to)
        known = await seen.ledger.nodes()
        return rollout(
            seen.ledger.ledger_id, datetime.now(UTC), statuses, known, verified=seen.verified
        )

    if not output.as_json and sys.stdout.isatty():
        from secret_ledger.cli.screen import screen

        with ended_in_order(), screen() as view:
            if view is not None:
                await watch(ask, view, every)
    await watch(ask, Lines(output, _NODE), every)


async def health(
    *,
    level: Annotated[
        Literal["latest", "incremental", "full"],
        Parameter(help="What the node verifies when it opens the ledger."),
    ] = "latest",
    common: Common = DEFAULTS,
) -> None:
    """Say whether a node with these settings could open the ledger and work, and why not.

    It checks the ledger and the keys in these settings, and names live nodes that announce
    another active key. It does not check a running process, which answers at /readyz itself.
    Exit 0 if the node is ready. If an error refuses the node, exit with the error's code, else
    with 41. Fields in a pipe: name and value, in a line for each; `reason`, `warning` and
    `differs` may stand several times.
    """
    output = Output(common.json)
    refusal: LedgerError | None = None
    known: dict[str, Any] = {"ready": False, "state": "unready", "reasons": []}
    try:
        async with look(common, output, say=False, verify=level) as seen:
            refusal = seen.refusal
            known |= {"ledger_id": seen.ledger.ledger_id, "verified": seen.verified}
            from secret_ledger.ledger import SecretLedger

            if isinstance(seen.ledger, SecretLedger):
                known |= facts(await seen.ledger.health())
                if known["unwritable"]:
                    # This look only reads, and a service would write.
                    known |= {"ready": False, "state": "unready"}
                    known["reasons"] = [*known["unwritable"], *known["reasons"]]
    except (InvalidKey, InsecureKeyFile):
        raise
    except LedgerError as error:
        refusal = error
        known |= {"verified": False}
    if refusal is not None:
        known["reasons"] = [f"{refusal.code}: {refusal.message}"]
    _show(output, known)
    if refusal is not None:
        raise refusal
    if not known["ready"]:
        raise NodeNotReady(
            f"not ready: {'; '.join(known['reasons'])}", hint="secret-ledger verify, and nodes"
        )


def _show(output: Output, known: dict[str, Any]) -> None:
    if output.as_json:
        output.document(known)
        return
    terminal = sys.stdout.isatty()
    for name, value in known.items():
        for one in value if isinstance(value, list) else [value]:
            label = _LABELS.get(name, name)
            if not terminal:
                output.line(label, one)
            elif one is not None:
                print(f"{label.replace('_', ' ') + ':':<24}{visible(text_of(one))}")
