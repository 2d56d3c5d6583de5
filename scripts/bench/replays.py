"""Replays: every event read and opened, and the projection made anew from them."""

from __future__ import annotations

from apart import on_a_copy, over_the_floor
from contenders import contenders
from peer import TUNED
from places import Place
from runs import once, once_blocking
from sealed_floors import filled
from seeds import Seeds
from turns import FLOOR, OURS, PEER, Outcome, Scenario, compete

__all__ = ["measure"]


async def measure(
    place: Place, seeds: Seeds, secrets: int, events: int, rounds: int
) -> list[Outcome]:
    """The replay of two versions of so many secrets; the rebuild from so many events."""
    return [
        *await _replay(place, secrets, rounds),
        *await _rebuild(place, seeds, events, min(rounds, 3)),
    ]


async def _replay(place: Place, secrets: int, rounds: int) -> list[Outcome]:
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
        return await compete([scenario], rounds)


async def _rebuild(place: Place, seeds: Seeds, events: int, rounds: int) -> list[Outcome]:
    """Without the peer: its runner commits once an event, and not on SQLite."""
    seed = await seeds.ledger(events // 2, 2)
    url = place.empty("rebuild_floor")
    async with filled(url, events):
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
    return await compete([scenario], rounds)
