"""A fleet at work through a rotation and a re-encryption, held against the log's own rows."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from fleet import Process, check_history, start
from independent_fold import CONTROL, Folded
from ledgers import NEW, OLD
from secret_ledger import Key

BOTH = (NEW, OLD)
STYLES = ("shared", "each", "batch")


async def started(url: str, writers: int) -> dict[str, Process]:
    """The four that have a part to play, and so many that only write."""
    parts: dict[str, Sequence[Key]] = {
        "rotates": BOTH, "stale": (OLD,), "dies": BOTH, "rekeys": BOTH,
        **{f"writes-{n}": BOTH for n in range(writers)},
    }  # fmt: skip
    return {
        name: await start(url, keys, name, STYLES[number % 3], tasks=2)
        for number, (name, keys) in enumerate(parts.items())
    }


async def all_wrote(fleet: dict[str, Process], times: int) -> None:
    """Wait until each has been told of so many writes more."""
    had = {name: len(process.said("wrote")) for name, process in fleet.items()}
    await asyncio.gather(*(p.hear("wrote", had[n] + times) for n, p in fleet.items()))


async def test_a_fleet_goes_through_a_rotation_and_a_rekey_and_loses_nothing(
    database_url: str,
) -> None:
    url = database_url
    writers = 1 if url.startswith("sqlite") else 4
    founder = await start(url, OLD, "founder", "each", tasks=1, count=3)
    assert await founder.finish() == 0
    fleet = await started(url, writers)
    rotates, stale, dies, rekeys = (fleet[n] for n in ("rotates", "stale", "dies", "rekeys"))
    await all_wrote(fleet, 4)

    rotates.tell("rotate")  # the stale one is alive, and named: no rotation without a reason
    assert await rotates.hear("refused", unique="rotate", code="node_not_ready")
    rotates.tell("rotate the old key leaked")
    asyncio.get_running_loop().call_later(random.uniform(0, 0.05), dies.handle.kill)
    (turn,) = await rotates.hear("rotated")
    assert turn["key_id"] == "k-new"

    assert await stale.finish() == 14
    assert await dies.finish() == -9
    running = {n: p for n, p in fleet.items() if p not in (stale, dies)}
    await all_wrote(running, 3)
    rekeys.tell("rekey")
    (rekeyed,) = await rekeys.hear("rekeyed")
    assert (rekeyed["key_id"], rekeyed["ok"]) == ("k-new", True)
    await all_wrote(running, 2)
    for process in running.values():
        process.tell("stop")
    assert await asyncio.gather(*(p.finish() for p in running.values())) == [0] * len(running)

    everybody = [founder, *fleet.values()]
    events = await check_history(url, BOTH, [t for p in everybody for t in p.acknowledged])
    last_of_old, first_of_new = one_handover(events)
    assert first_of_new == turn["position"]
    for process in everybody:
        for wrote in process.said("wrote"):
            for position, key_id in zip(wrote["positions"], wrote["keys"], strict=True):
                assert key_id == events[position - 1].key_id
        assert not process.said("refused") or process in (rotates, stale)
    written = Counter(e.value for e in events if e.event_type == "secret.written")
    assert set(written.values()) == {1}  # nor was what nobody was told of written twice
    assert {line["code"] for line in stale.said("refused")} == {"stale_key"}
    assert all(max(w["positions"]) <= last_of_old for w in stale.said("wrote"))
    assert not any(line["unique"].encode() in written for line in stale.said("refused"))
    assert rekeyed["rekeyed"] == rekeys_kept_their_values(events) > 0
    assert no_head_is_under("k-old", events)
    for process in running.values():
        assert process.said("wrote")[-1]["keys"][-1] == "k-new"


def one_handover(events: Sequence[Folded]) -> tuple[int, int]:
    """The last position under the first key, and the first one under the second."""
    epochs = [e.epoch for e in events]
    assert epochs[0] == 0  # genesis introduces its key before it is active
    turn = epochs.index(2)
    assert epochs[1:] == [1] * (turn - 1) + [2] * (len(epochs) - turn)
    assert [e.key_id for e in events] == ["k-old"] * turn + ["k-new"] * (len(epochs) - turn)
    assert [(e.stream, e.event_type) for e in events[turn - 1 : turn + 1]] == [
        (CONTROL, "key.introduced"), (CONTROL, "key.activated"),
    ]  # fmt: skip
    return turn, turn + 1


def rekeys_kept_their_values(events: Sequence[Folded]) -> int:
    """How many events were sealed again; each says what the version that it names says."""
    versions: dict[str, list[Folded]] = defaultdict(list)
    found = 0
    for event in events:
        if event.event_type == "secret.rekeyed":
            of = versions[event.stream][event.metadata["ledger"]["of"] - 1]
            assert of is versions[event.stream][-1]  # nothing came in between
            assert (event.value, of.event_type) == (of.value, "secret.written")
            found += 1
        versions[event.stream].append(event)
    return found


def no_head_is_under(key_id: str, events: Sequence[Folded]) -> bool:
    heads = {e.stream: e for e in events}
    return all(head.key_id != key_id for head in heads.values())
