"""Nodes: nodes, health."""

from __future__ import annotations

import sys
from typing import Any, Final

from cyclopts import App

from ledger.cli.opening import look
from ledger.cli.options import DEFAULTS, Common, register
from ledger.cli.output import Columns, Output, each, facts, text_of, visible
from ledger.errors import InsecureKeyFile, InvalidKey, LedgerError, NodeNotReady

__all__ = ["add_to"]

_NODE: Final = Columns(
    all=(
        "state", "node", "host", "pid", "release", "key_id", "key_fingerprint", "pending_id",
        "pending_fingerprint", "position", "refusals", "reason", "started_at", "last_seen",
        "differs",
    ),
    shown=(
        "state", "node", "pid", "key_id", "key_fingerprint", "refusals", "reason", "last_seen",
        "differs",
    ),
)  # fmt: skip


def add_to(app: App) -> None:
    """Register these verbs."""
    register(app, nodes)
    register(app, health, "secret-ledger health --json | jq .ready")


async def nodes(*, common: Common = DEFAULTS) -> None:
    """Who has the ledger open under which key, and which boots were refused.

    Nodes write these lines themselves, and nothing seals them. Needs no key. Fields in a
    pipe: state, node, host, pid, release, key id, fingerprint, pending key id and
    fingerprint, position, refusals, reason, start, last seen, differs.
    """
    output = Output(common.json)
    async with look(common, output) as seen:
        await output.rows(
            "nodes",
            _NODE,
            each(await seen.ledger.nodes()),
            ledger_id=seen.ledger.ledger_id,
            verified=seen.verified,
        )


async def health(*, common: Common = DEFAULTS) -> None:
    """Whether a node with these settings could do its work, and why not.

    Exit 0 if it is ready, with the code of what refuses it, else 41. Fields in a pipe: name
    and value, a line each; `reason` may stand several times.
    """
    output = Output(common.json)
    refusal: LedgerError | None = None
    known: dict[str, Any] = {"ready": False, "state": "unready", "reasons": []}
    try:
        async with look(common, output, say=False) as seen:
            refusal = seen.refusal
            known |= {"ledger_id": seen.ledger.ledger_id, "verified": seen.verified}
            from ledger.secret_ledger import SecretLedger

            if isinstance(seen.ledger, SecretLedger):
                known |= facts(await seen.ledger.health())
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
            label = {"reasons": "reason", "warnings": "warning"}.get(name, name)
            if not terminal:
                output.line(label, one)
            elif one is not None:
                print(f"{label.replace('_', ' ') + ':':<24}{visible(text_of(one))}")
