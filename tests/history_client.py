"""A client that does a bit of everything to a few secrets, and says when it did what.

Before a call it says that it begins, after it how it ended; both with the time, of the
machine's one monotonic clock. A call that is cut off by a kill has begun and has no end.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from linearizability import Call
from secret_ledger import (
    LedgerUnavailable,
    SecretDeleted,
    SecretInfo,
    SecretLedger,
    SecretNotFound,
    VersionConflict,
)

SECRETS = ("a", "b", "c")


async def client(
    ledger: SecretLedger,
    node: str,
    say: Callable[..., None],
    stop: asyncio.Event,
    task: int,
    *,
    calls: int,
) -> None:
    """Make so many calls (0: until it is stopped), chosen by chance that node and task seed."""
    chance = random.Random(f"{node}/{task}")
    seen: dict[str, int] = defaultdict(int)
    for number in range(calls) if calls else count():
        if stop.is_set():
            return
        name = chance.choice(SECRETS)
        action = chance.choices(("get", "put", "delete", "restore"), (4, 5, 1, 2))[0]
        # The version that was seen, or any; now and then one that is wrong for sure.
        before = max(seen[name] - 1, 0)
        expect = chance.choices((None, seen[name], before), (4, 4, 1))[0]
        call: dict[str, Any] = {"call": f"{node}/{task}/{number}", "name": name, "action": action}
        if action != "get":
            call |= {"expect": expect}
        if action == "put":
            call |= {"value": call["call"]}
        say("began", at=time.monotonic_ns(), **call)
        outcome, version = await _made(ledger, call)
        if outcome is not None:
            say("ended", at=time.monotonic_ns(), call=call["call"], outcome=outcome)
        if version is not None:
            seen[name] = version


async def _made(
    ledger: SecretLedger, call: dict[str, Any]
) -> tuple[tuple[object, ...] | None, int | None]:
    """How a call ended, None where nobody knows; and the version that it saw."""
    info: SecretInfo
    name, expect = call["name"], call.get("expect")
    try:
        if call["action"] == "get":
            got = await ledger.get(name)
            return ("value", got.version, got.value.reveal_text()), got.version
        if call["action"] == "put":
            info = await ledger.put(name, call["value"], expect=expect)
        elif call["action"] == "delete":
            info = await ledger.delete(name, expect=expect)
        else:
            info = await ledger.restore(name, expect=expect)
    except (VersionConflict, SecretDeleted) as error:
        kind = "conflict" if isinstance(error, VersionConflict) else "deleted"
        version: int = error.details["version"]
        return (kind, version), version
    except SecretNotFound:
        return ("absent",), None
    except LedgerUnavailable as error:
        return (None, None) if error.outcome_unknown else (("nothing", error.message), None)
    return ("wrote", info.version), info.version


def histories(lines: Iterable[dict[str, Any]]) -> dict[str, list[Call]]:
    """What the clients have said, as the calls to each secret. Those that are known to have
    done nothing, because the database was out of reach, are left out."""
    found: dict[str, list[Call]] = defaultdict(list)
    for line, end in _with_ends(lines):
        if _did_nothing(end):
            continue
        found[line["name"]].append(
            Call(
                action=line["action"],
                invoked=line["at"],
                answered=end["at"] if end else None,
                outcome=tuple(end["outcome"]) if end else None,
                value=line.get("value"),
                expect=line.get("expect"),
            )
        )
    return found


def refused_writes(lines: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """The node and the id of each write that the database was out of reach for, and what it was
    told."""
    return [
        (line["call"].partition("/")[0], f"{line['call']} {line['action']}: {end['outcome'][1]}")
        for line, end in _with_ends(lines)
        if line["action"] != "get" and end is not None and _did_nothing(end)
    ]


def _with_ends(
    lines: Iterable[dict[str, Any]],
) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """What was said at the beginning of each call, and at its end, if it had one."""
    lines = list(lines)
    ends = {line["call"]: line for line in lines if line["kind"] == "ended"}
    return [(line, ends.get(line["call"])) for line in lines if line["kind"] == "began"]


def _did_nothing(end: dict[str, Any] | None) -> bool:
    return end is not None and end["outcome"][0] == "nothing"
