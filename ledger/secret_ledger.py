"""`SecretLedger`: what an application holds. Every method is a thin call into the parts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import anyio

from ledger.append import InlineProjection
from ledger.boot import Booted
from ledger.decide import Delete, Destroy, Intent, Put, Restore
from ledger.errors import (
    InvalidName,
    InvalidValue,
    LedgerError,
    LedgerUnavailable,
    ValueTooLarge,
)
from ledger.findings import Level, Tell, VerifyReport
from ledger.following import Follower
from ledger.health import Health, KeyStatus, key_status, projection_lag
from ledger.keys import Keyring
from ledger.log import log
from ledger.metadata import encode_metadata, parse_metadata
from ledger.names import normalise_name
from ledger.nodes import HEARTBEAT, Identity, NodeInfo, announce, forget, list_nodes
from ledger.opening import init_ledger, open_ledger
from ledger.reading import get_secret, list_history, list_secrets, patiently
from ledger.secret import Secret
from ledger.store.database import Database, Replica
from ledger.store.reads import head_in_use
from ledger.verify import CheckedProjection, verify_ledger
from ledger.versions import SecretInfo, SecretVersion
from ledger.writer import Writer

__all__ = ["MAX_CALL", "MAX_VALUE", "SecretLedger"]

MAX_VALUE: Final = 1024 * 1024
"""Bytes of one value."""
MAX_CALL: Final = 16 * 1024 * 1024
"""Bytes of all values of one call."""

Value = str | bytes | Secret
Item = tuple[str, Value] | tuple[str, Value, int | None]


@dataclass(slots=True)
class _Verified:
    report: VerifyReport
    at: float


class SecretLedger:
    """An open ledger. Made by `SecretLedger.open`, which runs the boot gate."""

    open = staticmethod(open_ledger)
    init = staticmethod(init_ledger)

    def __init__(
        self,
        database: Database,
        booted: Booted,
        identity: Identity,
        projections: Sequence[InlineProjection],
        *,
        read_only: bool,
        patience: float,
    ) -> None:
        self._database = database
        self._meta = booted.meta
        self._follower: Follower = booted.follower
        self._identity = identity
        self._projections = projections
        self._read_only = read_only
        self._writer = Writer(self._follower, projections, patience=patience)
        self._verified = _Verified(booted.report, time.monotonic())
        self._heartbeat: asyncio.Task[None] | None = None
        self._heartbeat_failure: str | None = None
        self._announced = booted.follower.standing.held
        self.warnings: Sequence[str] = booted.warnings
        """What the boot gate let pass and an operator should hear of."""
        self.created: bool = booted.created
        """Whether this call made the ledger."""

    # --- what it is ------------------------------------------------------------------

    @property
    def ledger_id(self) -> str:
        """The ledger's id: 32 hex digits, for OS_SECRET_LEDGER_ID."""
        return self._meta.ledger_id.hex()

    @property
    def database(self) -> Database:
        """The database below, for projections of your own."""
        return self._database

    @property
    def position(self) -> int:
        """The highest position of the log that this process has met."""
        return self._follower.seen

    @property
    def read_only(self) -> bool:
        """Whether it was opened to be read only."""
        return self._read_only

    def __repr__(self) -> str:
        return f"<SecretLedger {self.ledger_id} at {self._database.place}>"

    # --- writing ---------------------------------------------------------------------

    # Not `async def`, these two: a coroutine that is cancelled before it began still shows
    # its arguments in a traceback with locals.

    def put(
        self,
        name: str,
        value: Value,
        *,
        expect: int | None = None,
        actor: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Coroutine[Any, Any, SecretVersion]:
        """Write `value` as the next version of the secret `name`.

        `expect`: None any, 0 no version yet, n the version that the caller saw.
        Raises VersionConflict, InvalidName, InvalidValue, ValueTooLarge, StaleKey,
        MissingKey or TamperedEvent (what it would build on does not open),
        LedgerUnavailable.
        """
        return self._put(name, _wrap(value), expect, actor, metadata)

    async def _put(
        self,
        name: str,
        wrapped: Wrapped,
        expect: int | None,
        actor: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> SecretVersion:
        put = Put(normalise_name(name), _secret(wrapped), _expected(expect), actor, metadata)
        _check_sizes([put])
        return _version(await self._write([put]))

    def put_many(
        self, items: Mapping[str, Value] | Iterable[Item], *, actor: str | None = None
    ) -> Coroutine[Any, Any, Sequence[SecretVersion]]:
        """Write many secrets in one transaction: all of them, or none.

        `items`: a mapping of names to values, or tuples (name, value[, expect]); no name
        twice. Raises what `put` raises.
        """
        return self._put_many(_wrap_items(items), actor)

    async def _put_many(
        self, wrapped: Sequence[tuple[Any, Wrapped, Any]], actor: str | None
    ) -> Sequence[SecretVersion]:
        puts = [
            Put(normalise_name(name), _secret(value), _expected(expect), actor, None)
            for name, value, expect in wrapped
        ]
        names = {put.stream for put in puts}
        if len(names) != len(puts):
            raise InvalidName("a name stands twice in one call (names are compared as NFC)")
        _check_sizes(puts)
        if not puts:
            return []
        written = await self._write(puts)
        return [_version([one]) for one in written]

    async def delete(
        self,
        name: str,
        *,
        expect: int | None = None,
        actor: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> SecretInfo:
        """End a live secret; its history is kept.

        Raises SecretNotFound, SecretDeleted where it is deleted already, SecretDestroyed.
        """
        intent = Delete(normalise_name(name), _expected(expect), actor, metadata)
        return (await self._write([intent]))[0]

    async def restore(
        self,
        name: str,
        version: int | None = None,
        *,
        expect: int | None = None,
        actor: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> SecretInfo:
        """Write an earlier value of a deleted secret as its next version.

        `version`: default, the last one before the deletion. Raises VersionConflict where
        the secret is live, SecretNotFound, SecretDestroyed, MissingKey.
        """
        wanted = _number(version, "version")
        intent = Restore(normalise_name(name), wanted, _expected(expect), actor, metadata)
        return (await self._write([intent]))[0]

    async def destroy(self, name: str, *, reason: str, actor: str | None = None) -> SecretInfo:
        """End a secret for good: no version of it so far is ever returned again, or needed.

        Also the way out for a secret whose latest event is damaged. A later `put` starts
        anew. Raises SecretNotFound, SecretDestroyed.
        """
        given: object = reason
        if not isinstance(given, str) or not given.strip():
            raise InvalidValue("a reason is needed to destroy a secret; it is kept in the log")
        return (await self._write([Destroy(normalise_name(name), reason, actor)]))[0]

    async def _write(self, intents: Sequence[Intent]) -> Sequence[SecretInfo]:
        if self._read_only:
            raise LedgerUnavailable(
                "the ledger was opened read-only", hint="open it without read_only"
            )
        # All intents of a call have one actor, and only a single one has metadata.
        return await self._writer.submit([_noted(intents[0]), *intents[1:]])

    # --- reading ---------------------------------------------------------------------

    async def get(
        self, name: str, *, version: int | None = None, at: datetime | None = None
    ) -> SecretVersion:
        """The latest version of a secret, version `version`, or the last one recorded at or
        before `at` (an aware datetime).

        Raises SecretNotFound, SecretDeleted, SecretDestroyed, MissingKey, TamperedEvent,
        LedgerUnavailable.
        """
        return await get_secret(
            self._follower, normalise_name(name), version=_number(version, "version"), at=at
        )

    def history(self, name: str) -> AsyncIterator[SecretInfo]:
        """Every version of a secret, oldest first: metadata only, nothing is decrypted."""
        return list_history(self._database, normalise_name(name), self._lost())

    def list(self, prefix: str = "", deleted: bool = False) -> AsyncIterator[SecretInfo]:
        """The secrets whose names begin with `prefix`, in order of the names' bytes:
        metadata only, nothing is decrypted. `deleted` adds deleted and destroyed ones."""
        return list_secrets(self._database, prefix, deleted=deleted, lost=self._lost())

    def _lost(self) -> frozenset[bytes]:
        control = self._follower.standing.control
        return frozenset(key.fingerprint for key in control.keys if key.lost is not None)

    # --- proving and looking ---------------------------------------------------------

    async def verify(
        self, level: Level = "latest", on_progress: Tell | None = None
    ) -> VerifyReport:
        """Check what is stored and report: findings are returned, not raised.

        `level`: "control", "latest" (every head opens) or "full" (every event, every chain,
        the projections). Raises LedgerUnavailable, or TamperedEvent where the control
        stream itself is damaged.
        """
        report = None
        while report is None:  # else a rotation came in between
            report = await verify_ledger(
                self._database,
                self._meta,
                await self._follower.follow(),
                level,
                projections=[p for p in self._projections if isinstance(p, CheckedProjection)],
                on_progress=on_progress,
            )
        self._verified = _Verified(report, time.monotonic())
        return report

    async def nodes(self) -> Sequence[NodeInfo]:
        """The nodes that have the ledger open, and the boots that were refused.

        Unauthenticated: the lines are written by the nodes and sealed by nobody.
        """
        active = self._follower.standing.control.active.fingerprint
        return await patiently(self._database, lambda c: list_nodes(c, self._database, active))

    async def key_status(self) -> Sequence[KeyStatus]:
        """Each key of the ledger, in order of activation, and a pending one."""
        standing = await self._follower.follow()
        head = await patiently(self._database, lambda c: head_in_use(c, self._database))
        return key_status(standing, head)

    async def health(self) -> Health:
        """Whether this node can do its work, and why not. Never raises."""
        began = time.monotonic()
        reasons: list[str] = []
        lag: int | None = None
        replica: Replica | None = None
        behind: float | None = None
        position = self._follower.seen
        try:
            replica = await self._database.run(self._database.replica, "statement")
            behind = replica.lag_seconds if replica is not None else None
            began = time.monotonic()
            head = await self._database.run(self._follower.lineage.recognise, "statement")
            trip = time.monotonic() - began
            if head is None:
                reasons.append("no generation is in use")
            else:
                position = head.position
                if self._follower.in_doubt or not self._follower.is_current(head):
                    await self._follower.follow()
                lag = await projection_lag(self._database, head, self._projections)
        except LedgerError as error:
            trip = time.monotonic() - began
            reasons.append(f"{error.code}: {error.message}")
            behind = error.details.get("replica_lag_seconds", behind)
        standing = self._follower.standing
        if standing.refusal is not None:
            reasons.append(f"{standing.refusal.code}: {standing.refusal.message}")
        if not self._verified.report.ok:
            reasons.append(f"{len(self._verified.report.findings)} findings at the last verify")
        degraded = [self._heartbeat_failure] if self._heartbeat_failure else []
        if replica is not None and not replica.receiving:
            degraded.append("this standby receives nothing from its primary")
        held = standing.held
        return Health(
            ready=not reasons,
            state="unready" if reasons else "degraded" if degraded else "ready",
            reasons=(*reasons, *degraded),
            ledger_id=self.ledger_id,
            node=self._identity.node,
            read_only=self._read_only,
            position=position,
            key_epoch=standing.control.epoch,
            active_key_id=standing.control.active.id,
            active_fingerprint=standing.control.active.fingerprint.hex(),
            pending_fingerprint=held.pending.fingerprint.hex() if held and held.pending else None,
            projection_lag=lag,
            verified_seconds_ago=time.monotonic() - self._verified.at,
            verified_level=self._verified.report.level,
            round_trip_seconds=trip,
            warnings=tuple(self.warnings),
            replica_lag_seconds=behind,
        )

    # --- opening and closing ---------------------------------------------------------

    @property
    def keyring(self) -> Keyring:
        """The keys in hand; its repr shows none of them."""
        return self._follower.keyring

    def _start(self) -> None:
        if not self._read_only:
            self._heartbeat = asyncio.create_task(self._beat(), name="secret-ledger heartbeat")

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(HEARTBEAT)
            await self._renew()

    async def _renew(self) -> None:
        """Announce this node again, and follow a rotation though nobody reads or writes."""
        try:
            head = await self._database.run(self._follower.lineage.recognise, "statement")
            if head is None:
                return
            if not self._follower.is_current(head):
                await self._follower.follow()
            # A node that may not write any more is live all the same, with the key it had.
            held = self._announced = self._follower.standing.held or self._announced
            if held is not None:
                await self._database.run(
                    lambda c: announce(c, self._database, self._identity, held, head), "note"
                )
            self._heartbeat_failure = None
        except LedgerError as error:
            # It never takes the service down; health says that it fails.
            self._heartbeat_failure = f"heartbeat: {error.message}"

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True):
            if self._heartbeat is not None:
                self._heartbeat.cancel()
                await asyncio.wait([self._heartbeat])
            await self._writer.close()
            if not self._read_only:
                try:
                    with anyio.move_on_after(2):
                        await self._database.run(
                            lambda c: forget(c, self._database, self._identity), "note"
                        )
                except LedgerError:
                    log.info("ledger_node_not_removed", node=self._identity.node)


Wrapped = Secret | LedgerError

_NO_ITEM: Final = (
    "",
    InvalidValue("put_many takes a mapping, or tuples (name, value[, expect])"),
    None,
)


def _wrap(value: object) -> Wrapped:
    """The value as a Secret, or what is wrong with it: never raises, so that no frame that
    holds the bare value is part of a traceback with locals."""
    try:
        return value if isinstance(value, Secret) else Secret(value)  # type: ignore[arg-type]
    except LedgerError as error:
        return error.with_traceback(None)


def _wrap_items(items: object) -> list[tuple[Any, Wrapped, Any]]:
    pairs = items.items() if isinstance(items, Mapping) else items
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        return [_NO_ITEM]
    return [_wrap_item(item) for item in pairs]


def _wrap_item(item: object) -> tuple[Any, Wrapped, Any]:
    if isinstance(item, tuple) and len(item) in (2, 3):
        name, value, *expect = item
        return name, _wrap(value), expect[0] if expect else None
    return _NO_ITEM


def _secret(wrapped: Wrapped) -> Secret:
    if isinstance(wrapped, LedgerError):
        raise wrapped
    return wrapped


def _expected(expect: object) -> int | None:
    return _number(expect, "expect")


def _number(value: object, name: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise InvalidValue(f"{name} must be None, 0 or a version number")


def _noted(intent: Intent) -> Intent:
    """`intent` with a copy of its metadata, which the caller may change while it waits.

    A bad actor, reason or metadata is raised here: it is its caller's own error.
    """
    if isinstance(intent, Destroy):
        encode_metadata(actor=intent.actor, reason=intent.reason)
        return intent
    text = encode_metadata(actor=intent.actor, user=intent.user)
    return replace(intent, user=parse_metadata(text).user) if intent.user else intent


def _check_sizes(puts: Sequence[Put]) -> None:
    total = 0
    for put in puts:
        size = len(put.value.reveal())
        total += size
        if size > MAX_VALUE:
            raise ValueTooLarge(
                f"the value of {put.stream} has {size:,} bytes; at most {MAX_VALUE:,} fit",
                hint="a secret is small: keep large data elsewhere, sealed with a key kept here",
                stream=put.stream,
            )
    if total > MAX_CALL:
        raise ValueTooLarge(
            f"the values of this call have {total:,} bytes; at most {MAX_CALL:,} fit",
            hint="split it into several calls",
        )


def _version(written: Sequence[SecretInfo]) -> SecretVersion:
    (one,) = written
    assert isinstance(one, SecretVersion)  # noqa: S101  # a Put's fact carries its value
    return one
