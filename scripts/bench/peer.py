"""The peer: the `eventsourcing` library with its AES cipher, which a user would take instead.

It is used as in its documentation: an application gets an aggregate from the repository, changes
it and saves it. Names become ids by `uuid5`, as the library recommends. Histories are short (each
secret has few versions), because its `get` replays them. With snapshots, its answer to long
histories, it would write more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import Application
from eventsourcing.cipher import AESCipher
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.sqlite import SQLiteConnection, SQLiteConnectionPool, SQLiteFactory
from eventsourcing.utils import get_topic
from sqlalchemy import make_url

from turns import PEER

__all__ = [
    "CACHED",
    "MEANINGS",
    "STALE",
    "TUNED",
    "Peer",
    "PeerKind",
    "new_key",
    "open_peer",
]

PeerKind = str

TUNED: Final = "peer: tuned"
CACHED: Final = "peer: cached"
STALE: Final = "peer: cached, stale"

MEANINGS: Final = {
    TUNED: "with its quicker cipher (extra `cryptography`), on PostgreSQL its database functions",
    CACHED: "tuned, and aggregates cached in clear; it asks the database for newer events",
    STALE: "cached, without asking: a put loads nothing, and what others write is not seen",
}

_AS_IT_COMES: Final = {"CIPHER_TOPIC": "eventsourcing.cipher:AESCipher"}
_TUNED: Final = {
    "CIPHER_TOPIC": "eventsourcing.cryptography:AESCipher",
    # One trip instead of several, and without the lock on the table that keeps its log in order.
    "POSTGRES_ENABLE_DB_FUNCTIONS": "y",
}
_CACHED: Final = {**_TUNED, "AGGREGATE_CACHE_MAXSIZE": "1000000"}
_KINDS: Final[dict[PeerKind, dict[str, str]]] = {
    PEER: _AS_IT_COMES,
    TUNED: _TUNED,
    CACHED: _CACHED,
    STALE: {**_CACHED, "AGGREGATE_CACHE_FASTFORWARD": "n"},
}
_PAGE: Final = 1000
_PATIENCE: Final = 60
"""Seconds for a connection or a lock: its default, 5, would refuse callers on a busy machine."""


class Secret(Aggregate):
    """A secret, as users of the library would model it."""

    @event("Created")
    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self.value = value

    @staticmethod
    def create_id(name: str, *_: Any, **__: Any) -> UUID:
        return uuid5(NAMESPACE_URL, f"/secrets/{name}")

    @event("Written")
    def write(self, value: str) -> None:
        self.value = value


class _DurablePool(SQLiteConnectionPool):
    """The library's own pool sets no `synchronous`: the way SQLite was compiled would decide."""

    def _create_connection(self) -> SQLiteConnection:
        connection = super()._create_connection()
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = FULL")
        found = []
        for setting in ("journal_mode", "synchronous"):
            cursor.execute(f"PRAGMA {setting}")
            found.append(cursor.fetchone()[0])
        if found != ["wal", 2]:
            raise RuntimeError(f"the peer's SQLite connection is not durable: {found}")
        return connection


class Secrets(Application[UUID]):
    """The library's application, as durable as ours."""

    def construct_factory(self, env: Any) -> InfrastructureFactory[Any]:
        factory = super().construct_factory(env)
        if isinstance(factory, SQLiteFactory):
            pool = factory.datastore.pool
            pool.close()
            factory.datastore.pool = _DurablePool(
                db_name=pool.db_name, lock_timeout=_PATIENCE, pool_timeout=_PATIENCE
            )
        return factory


class Peer:
    """An open application with some secrets in it."""

    def __init__(self, application: Secrets) -> None:
        self.application = application

    def fill(self, names: Sequence[str], value: str) -> None:
        """Write a first version of each secret."""
        for start in range(0, len(names), _PAGE):
            made = [Secret(name, value) for name in names[start : start + _PAGE]]
            self.application.save(*made)

    def rewrite(self, names: Sequence[str], value: str) -> None:
        """Write another version of each secret."""
        for start in range(0, len(names), _PAGE):
            changed = [self._secret(name) for name in names[start : start + _PAGE]]
            for secret in changed:
                secret.write(value)
            self.application.save(*changed)

    def put(self, name: str, value: str) -> None:
        """Get the aggregate, change it, save it."""
        secret = self._secret(name)
        secret.write(value)
        self.application.save(secret)

    def putters(self, names: Sequence[str], value: str, callers: int) -> list[Callable[[], None]]:
        """Make a put for each caller, with names of its own: two writers of one name collide."""

        def putter(own: Sequence[str]) -> Callable[[], None]:
            return lambda: self.put(random.choice(own), value)  # noqa: S311  # guards nothing

        return [putter(names[number::callers]) for number in range(callers)]

    def get(self, name: str, *, version: int | None = None) -> str:
        """Return the value, as a reader gets it: without the copy that a writer needs."""
        secret: Secret = self.application.repository.get(
            Secret.create_id(name), version=version, deepcopy_from_cache=False
        )
        return secret.value

    def list(self) -> int:
        """Read the names of all secrets, which only `Created` events hold. Returns their number."""
        return sum(1 for _ in self._events([get_topic(Secret.Created)]))

    def replay(self) -> int:
        """Read and decrypt every event. Returns their number."""
        return sum(1 for _ in self._events([]))

    def close(self) -> None:
        """Close the connections."""
        self.application.close()

    def _events(self, topics: Sequence[str]) -> Iterator[Any]:
        recorder, mapper = self.application.recorder, self.application.mapper
        start: int | None = None
        while page := recorder.select_notifications(
            start, _PAGE, topics=topics, inclusive_of_start=False
        ):
            for notification in page:
                yield mapper.to_domain_event(notification)
            start = page[-1].id

    def _secret(self, name: str) -> Secret:
        secret: Secret = self.application.repository.get(Secret.create_id(name))
        return secret


def open_peer(url: str, kind: PeerKind = PEER, key: str | None = None) -> Peer:
    """Open a peer on the database that a ledger's URL names.

    Raises RuntimeError if the peer is less durable than the ledger.
    """
    address = make_url(url)
    env = {"CIPHER_KEY": key or new_key(), **_KINDS[kind]}
    if address.get_backend_name() == "sqlite":
        env |= {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": address.database or "",
        }
        return Peer(Secrets(env=env))
    env |= {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": address.database or "",
        "POSTGRES_HOST": address.host or "",
        "POSTGRES_PORT": str(address.port or 5432),
        "POSTGRES_USER": address.username or "",
        "POSTGRES_PASSWORD": address.password or "",
        "POSTGRES_CONNECT_TIMEOUT": str(_PATIENCE),
    }
    peer = Peer(Secrets(env=env))
    with peer.application.factory.datastore.transaction(commit=False) as cursor:
        cursor.execute("SHOW synchronous_commit")
        found = cursor.fetchone()["synchronous_commit"]
    if found != "on":
        raise RuntimeError(f"the peer's PostgreSQL connection is not durable: {found}")
    return peer


def new_key() -> str:
    """Make a key for the peer's cipher."""
    key: str = AESCipher.create_key(num_bytes=32)
    return key
