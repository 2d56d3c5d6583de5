"""Replays: every event is read and opened, and the projection is folded anew."""

from __future__ import annotations

from apart import on_a_copy, over_the_floor
from contenders import contenders
from given import Given
from peer import TUNED
from runs import once, once_blocking
from sealed_floors import filled
from turns import FLOOR, OURS, PEER, Outcome, Scenario, compete

__all__ = ["measure"]


async def measure(given: Given) -> list[Outcome]:
    """Measure the replay of every contender, and the rebuild of ours and the floor."""
    return [*await _replay(given), *await _rebuild(given)]


async def _replay(given: Given) -> list[Outcome]:
    place, secrets = given.place, given.size.secrets
    async with (
        contenders(place, secrets, 2, (PEER, TUNED)) as some,
        filled(place.empty("replay_floor"), secrets * 2) as floor,
    ):

        async def ours() -> int:
            report = await some.ledger.verify("full")
            report.raise_if_not_ok()
            return report.events

        scenario = Scenario(
            "replay with decryption",
            {
                OURS: once(ours),
                FLOOR: once(floor.open_all),
                **{kind: once_blocking(peer.replay) for kind, peer in some.peers.items()},
            },
            unit="events",
        )
        return await compete([scenario], given.rounds)


async def _rebuild(given: Given) -> list[Outcome]:
    """Without the peer: its runner commits after each event, and does not run on SQLite."""
    place, seed = given.place, await given.seeds.ledger(given.size.events // 2, 2)
    url = place.empty("rebuild_floor")
    async with filled(url, seed.events):
        pass
    scenario = Scenario(
        "projection rebuild",
        {
            OURS: on_a_copy("projection rebuild", place, seed),
            FLOOR: over_the_floor("floor: fold", url, after=seed.secrets),
        },
        unit="secrets",
        warm_up=False,
    )
    return await compete([scenario], given.few)
