"""Ours, the floor and the peer, open side by side with the same secrets in each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from floors import Floor, open_floor
from peer import CACHED, STALE, Peer, open_peer
from places import Place
from secret_ledger import Key, Keyring, SecretLedger
from seeds import fill
from values import names, some_value

__all__ = ["Contenders", "contenders"]


@dataclass(frozen=True, slots=True)
class Contenders:
    """The ledger, the floor and the peers, each in a database of its own."""

    names: Sequence[str]
    """Names of the secrets."""
    url: str
    """URL of the ledger, which `keyring` opens."""
    keyring: Keyring
    ledger: SecretLedger
    floor: Floor
    peers: dict[str, Peer]
    """A peer of each requested kind, by kind."""


@asynccontextmanager
async def contenders(
    place: Place, secrets: int, versions: int, kinds: Sequence[str]
) -> AsyncIterator[Contenders]:
    """Open all contenders, with `versions` (1 or 2) versions of each secret. Caches are warm."""
    known, value = names(secrets), some_value()
    url, keyring = place.empty("ours"), Keyring.of(Key.generate())
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(SecretLedger.open(url, keyring))
        await fill(ledger, known, versions)
        floor = await open_floor(place.empty("floor"))
        stack.push_async_callback(floor.close)
        await floor.fill(secrets)
        peers = {}
        for kind in kinds:
            peers[kind] = peer = open_peer(place.empty("peer"), kind)
            stack.callback(peer.close)
            peer.fill(known, value)
            if versions > 1:
                peer.rewrite(known, value)
            if kind in (CACHED, STALE):
                for name in known:
                    peer.get(name)
        yield Contenders(known, url, keyring, ledger, floor, peers)
