"""`SecretLedger`: what an application holds. Every method is a thin call into the parts."""

from __future__ import annotations

import time
from collections.abc import (
    AsyncIterator,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.engine import URL

from secret_ledger import opening
from secret_ledger.boot.reloading import reload_keys
from secret_ledger.config.key_watch import KeyWatch
from secret_ledger.config.keyring import KeyProvider, Keyring, key_source
from secret_ledger.errors import (
    InvalidKey,
    InvalidName,
    InvalidValue,
)
from secret_ledger.generations.migration import MigrationReport
from secret_ledger.generations.move import Destination, abandon_move, migrate_or_move
from secret_ledger.generations.purge import (
    GenerationInfo,
    PurgeReport,
    abandon,
    list_generations,
    purge,
)
from secret_ledger.inputs import (
    MAX_CALL,
    Item,
    Value,
    Wrapped,
    check_sizes,
    expected,
    number,
    seconds,
    unwrap,
    wrap,
    wrap_items,
)
from secret_ledger.model.keys import Key
from secret_ledger.model.metadata import encode_metadata, parse_metadata
from secret_ledger.model.names import normalise_name
from secret_ledger.model.secret import MAX_VALUE
from secret_ledger.model.versions import SecretInfo, SecretVersion
from secret_ledger.nodes.health import Health, KeyStatus, Observer, assess, key_status
from secret_ledger.nodes.heartbeat import Presence
from secret_ledger.nodes.registry import NodeInfo, list_nodes
from secret_ledger.opening import DEFAULT, Projections
from secret_ledger.read.census import Census, census
from secret_ledger.read.listing import Checker, list_history, list_secrets
from secret_ledger.read.reading import get_secret
from secret_ledger.read.view import VIEW_BYTES, ViewStatus, WhenStale
from secret_ledger.rotation.rekeying import RekeyReport, rekey
from secret_ledger.rotation.retirement import KeyEnd, loss, record_loss, retire
from secret_ledger.rotation.rotation import Rotation, rotate
from secret_ledger.rules.decide import Delete, Destroy, Intent, Put, Restore
from secret_ledger.rules.findings import Level, OnProgress, OpenLevel, VerifyReport
from secret_ledger.rules.gate import moved_place
from secret_ledger.rules.key_record import KeyRecord
from secret_ledger.rules.node_proof import Judge
from secret_ledger.session.following import Follower
from secret_ledger.session.opened import HEARTBEAT, Session
from secret_ledger.store.closing import to_its_end
from secret_ledger.store.database import Database
from secret_ledger.store.reads import head_in_use
from secret_ledger.store.retry import patiently, through_outages
from secret_ledger.verify.prover import Prover
from secret_ledger.verify.scrub import SCRUB_RATE, Scrub
from secret_ledger.verify.verified import FirstProof
from secret_ledger.write.writer import Writer

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["MAX_CALL", "MAX_VALUE", "SecretLedger"]


class SecretLedger:
    """An open ledger. `SecretLedger.open` makes it, and runs the boot gate."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str | URL | AsyncEngine,
        keyring: Keyring | KeyProvider,
        *,
        create: bool = True,
        verify: OpenLevel = "latest",
        read_only: bool = False,
        read_moved: bool = False,
        ledger_id: str | bytes | None = None,
        schema: str | None = None,
        node: str | None = None,
        projections: Projections = DEFAULT,
        watch_keys: float | None = None,
        heartbeat: float = HEARTBEAT,
        patience: float = 10.0,
        scrub_rate: float = SCRUB_RATE,
        max_staleness: float | None = None,
        when_stale: WhenStale = "database",
        view_bytes: int = VIEW_BYTES,
    ) -> AsyncIterator[Self]:
        """Open a ledger. The boot gate runs here, before anything is written.

        url: `sqlite+aiosqlite:///…`, `postgresql+asyncpg://…`, or a host's own AsyncEngine, which
            is not disposed of (a SQLite engine lends its URL, not its pool).
        keyring: the keys, or a provider of keys.
        create: make a ledger if the database holds none. A SQLite file with other tables is
            refused.
        verify: "control", "latest" (the newest event of every secret opens) or "full" (every event,
            and the projections). "incremental": the events since an attested verification, and a
            sample of the rest. The rest is checked once the ledger is open, with the outcome in
            `health`. If nothing is attested yet, this is "latest".
        read_only: announce and write nothing.
        read_moved: with `read_only`, also open a ledger that has moved to another database. It
            reads the rows that were left here at the hand-over. Otherwise LedgerMoved is raised.
        ledger_id: the id of the ledger (32 hex digits, or 16 bytes). No other ledger is opened, and
            none is made. The setting OS_SECRET_LEDGER_ID does the same.
        schema: PostgreSQL's schema, default OS_SECRET_LEDGER_SCHEMA, else `secret_ledger`.
        node: the name to announce, default the host's name.
        projections: the projections that are kept in the append's own transaction, default
            `sys_secret`.
        watch_keys: seconds after which the provider is asked for the keys again. If the gate lets
            the keys pass, the ledger uses them from then on; see `SecretLedger.reload_keys`.
        heartbeat: seconds between two renewals of this node's line. The node is live until it has
            missed three of them.
        patience: seconds that a write waits if the database can't be reached, or is locked.
        scrub_rate: rows a second that are checked after an incremental boot.
        max_staleness: seconds that an answer of `get` may be old. The secrets that are read are
            kept in memory, still sealed. `get` returns a kept version if it is proven that it was
            the latest version so many seconds before the call, or later. This process's own writes
            are always seen. 0: an answer is always fresh. SQLite tells without a statement whether
            anybody has written. PostgreSQL is asked by a statement, which all waiting reads share.
            None: every read goes to the database.
        when_stale: how a read goes on if that proof fails, because the database is out of reach or
            slow. "database": it reads from the database. "refuse": it raises LedgerUnavailable. An
            older version is never returned.
        view_bytes: bytes of memory that the kept secrets may take. The secret that was not read for
            longest goes first.

        Raises any refusal of the boot gate; see `errors`.
        """
        source, where = key_source(keyring), opening.without_text(url)
        del keyring, url  # a traceback with locals would show them
        options = opening.Options(
            create=create,
            verify=verify,
            read_only=read_only,
            read_moved=read_moved,
            ledger_id=ledger_id,
            schema=schema,
            node=node,
            projections=projections,
            watch_keys=watch_keys,
            heartbeat=heartbeat,
            patience=patience,
            scrub_rate=scrub_rate,
            max_staleness=max_staleness,
            when_stale=when_stale,
            view_bytes=view_bytes,
        )
        async with opening.opened(where, source, options) as parts:
            ledger = cls(parts)
            try:
                await opening.catch_up(parts)
                ledger._start()
                yield ledger
            finally:
                await ledger._close()

    init = staticmethod(opening.init_ledger)

    def __init__(self, parts: opening.Parts, /) -> None:
        booted, identity = parts.booted, parts.identity
        self._database = parts.database
        self._meta = booted.meta
        self._follower: Follower = booted.follower
        self._audit = parts.audit
        self._provider = parts.provider
        self._level = parts.level
        self._view = parts.view
        self._presence = None
        if not parts.read_only:
            self._presence = Presence(self._follower, identity, booted.differing)
        self._session = session = Session(
            follower=self._follower,
            projections=parts.projections,
            identity=identity,
            patience=parts.patience,
            read_only=parts.read_only,
            announce=_nothing if self._presence is None else self._presence.renew,
        )
        self._writer = Writer(self._follower, session.projections, patience=parts.patience)
        self._prover = Prover(session, booted.meta, booted.report)
        self._first_proof = FirstProof(self.verify, done=booted.report.level != "control")
        self._observer = Observer(self._follower, session.projections, identity)
        self._settings_warnings = booted.settings
        self._key_watch = (
            None if parts.watch_keys is None else KeyWatch(self.reload_keys, parts.watch_keys)
        )
        self._scrub = None
        if booted.report.level == "incremental":
            self._scrub = Scrub(self._prover.go_over, parts.scrub_rate)
        self.warnings: Sequence[str] = booted.warnings
        """The warnings for an operator about facts that the boot gate let pass."""
        self.created: bool = booted.created
        """Whether this call made the ledger."""

    # --- what it is ------------------------------------------------------------------

    @property
    def ledger_id(self) -> str:
        """The ledger's id: 32 hex digits, for OS_SECRET_LEDGER_ID."""
        return self._meta.ledger_id.hex()

    @property
    def moved_to(self) -> str | None:
        """Address of the database that the ledger has moved to, as this process has met it.

        None if the ledger has not moved. If it has moved, this process goes on reading here, and is
        not ready.
        """
        standing = self._follower.standing
        return moved_place(standing.control.events) if standing.moved else None

    @property
    def database(self) -> Database:
        """The database below, for projections of your own."""
        return self._database

    @property
    def position(self) -> int:
        """The highest position of the log that this process has met."""
        return self._follower.seen

    @property
    def view(self) -> ViewStatus | None:
        """How much is kept in memory, and how it serves. None without `max_staleness`."""
        return None if self._view is None else self._view.status

    @property
    def read_only(self) -> bool:
        """Whether the ledger was opened to be read only."""
        return self._session.read_only

    def __repr__(self) -> str:
        return f"<SecretLedger {self.ledger_id} at {self._database.place}>"

    # --- writing ---------------------------------------------------------------------

    # `put` and `put_many` are not `async def`: if a coroutine is cancelled before it begins, a
    # traceback with locals still shows its arguments.

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

        `expect`: the version that the caller saw; 0 if the secret has no version yet; None for any.

        Raises VersionConflict, InvalidName, InvalidValue, ValueTooLarge, StaleKey,
        LedgerUnavailable. Raises MissingKey or TamperedEvent if the newest event of the secret does
        not open.
        """
        return self._put(name, wrap(value), expect, actor, metadata)

    async def _put(
        self,
        name: str,
        wrapped: Wrapped,
        expect: int | None,
        actor: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> SecretVersion:
        put = Put(normalise_name(name), unwrap(wrapped), expected(expect), actor, metadata)
        check_sizes([put])
        return _version(await self._write([put]))

    def put_many(
        self, items: Mapping[str, Value] | Iterable[Item], *, actor: str | None = None
    ) -> Coroutine[Any, Any, Sequence[SecretVersion]]:
        """Write many secrets in one transaction: all of them, or none.

        `items`: a mapping of names to values, or tuples (name, value[, expect]). No name may occur
        twice. Raises the errors of `put`.
        """
        return self._put_many(wrap_items(items), actor)

    async def _put_many(
        self, wrapped: Sequence[tuple[Any, Wrapped, Any]], actor: str | None
    ) -> Sequence[SecretVersion]:
        values = [unwrap(value) for _, value, _ in wrapped]  # an invalid item has no name
        puts = [
            Put(normalise_name(name), value, expected(expect), actor, None)
            for (name, _, expect), value in zip(wrapped, values, strict=True)
        ]
        names = {put.stream for put in puts}
        if len(names) != len(puts):
            raise InvalidName("a name is given twice in one call (names are compared as NFC)")
        check_sizes(puts)
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
        """Delete a live secret. Its history is kept.

        Raises SecretNotFound, SecretDestroyed, and SecretDeleted if the secret is deleted already.
        """
        intent = Delete(normalise_name(name), expected(expect), actor, metadata)
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

        `version`: the version to write again, default the last version before the deletion. Raises
        SecretNotFound, SecretDestroyed, MissingKey, and VersionConflict if the secret is live.
        """
        wanted = number(version, "version")
        intent = Restore(normalise_name(name), wanted, expected(expect), actor, metadata)
        return (await self._write([intent]))[0]

    async def destroy(self, name: str, *, reason: str, actor: str | None = None) -> SecretInfo:
        """End a secret for good: no version so far is ever returned again, or needed.

        This is also the way out for a secret whose newest event is damaged. A later `put` starts
        anew. Raises SecretNotFound, SecretDestroyed, and InvalidValue without a reason.
        """
        given: object = reason
        if not isinstance(given, str) or not given.strip():
            raise InvalidValue("a reason is needed to destroy a secret; it is kept in the log")
        return (await self._write([Destroy(normalise_name(name), reason, actor)]))[0]

    async def _write(self, intents: Sequence[Intent]) -> Sequence[SecretInfo]:
        self._session.check_writable()
        # All intents of a call have one actor. Only the intent of a single write has metadata.
        return await self._writer.submit([_noted(intents[0]), *intents[1:]])

    # --- keys over time --------------------------------------------------------------

    async def rotate(
        self,
        new_key: Key | None = None,
        *,
        actor: str | None = None,
        force_reason: str | None = None,
    ) -> Rotation:
        """Make the pending key, or `new_key`, the active key: new events are sealed under it.

        If `new_key` is given, this process uses it as its current key from now on, and the others
        as previous keys. That holds even if the rotation is refused. Nothing is re-encrypted:
        `rekey` does that. If the key is active already, the report says so.

        Raises NodeNotReady, which names the nodes, while a live node can't read the key. A
        `force_reason` overrides that, and is recorded. Raises KeyReused if the key was active
        before, MigrationInProgress, StaleKey, and LedgerUnavailable.
        """
        if new_key is not None and not isinstance(new_key, Key):
            kind = type(new_key).__name__  # type: ignore[unreachable]  # callers without types
            del new_key
            raise InvalidKey(f"rotate takes a Key, not {kind}", hint="rotate(Key.parse(text))")
        self._session.check_writable()
        encode_metadata(actor=actor, reason=force_reason)
        return await rotate(self._session, new_key, actor=actor, force_reason=force_reason)

    async def rekey(
        self, *, actor: str | None = None, on_progress: OnProgress | None = None
    ) -> RekeyReport:
        """Seal the newest event of every secret again under the active key.

        Online, resumable, and idempotent. Older versions stay under their keys. Events that don't
        open are skipped and reported (`.ok`, `.findings`). Raises StaleKey, LedgerUnavailable.
        """
        self._session.check_writable()
        encode_metadata(actor=actor)
        return await rekey(self._session, actor=actor, on_progress=on_progress)

    async def retire(
        self, key_id: str, *, actor: str | None = None, on_progress: OnProgress | None = None
    ) -> KeyEnd:
        """Certify that nothing needs a key any more, so that it can be dropped from the settings.

        If that was done before, the report says so. Raises UnknownKey. Raises KeyInUse for the
        active key, and while any event of any generation needs the key: the message names their
        generations, and the way on.
        """
        self._session.check_writable()
        encode_metadata(actor=actor)
        return await retire(self._session, key_id, actor=actor, on_progress=on_progress)

    async def lost(
        self,
        key_id: str,
        *,
        reason: str,
        actor: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> KeyEnd:
        """Give up a superseded key that nobody has any more: nothing undoes it.

        Reads of its versions raise SecretDestroyed from then on, and nothing waits for the key any
        more. Raises UnknownKey, and KeyInUse if the key is active or in the keyring.
        """
        self._session.check_writable()
        encode_metadata(actor=actor, reason=reason)
        return await record_loss(
            self._session, key_id, reason=reason, actor=actor, on_progress=on_progress
        )

    # `migrate` and `abandon_migration` are not `async def` either: a URL may hold a password.

    def migrate(
        self,
        target_url: str | URL | AsyncEngine | None = None,
        *,
        target_schema: str | None = None,
        dry_run: bool = False,
        actor: str | None = None,
        force_reason: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Coroutine[Any, Any, MigrationReport]:
        """Copy the whole history under the active key into the next generation, here or elsewhere.

        Positions, versions, times, metadata and values stay as they are. Writers and readers go on
        meanwhile. Once the generation is put in use, they follow within the same call. `dry_run`
        reads all events, writes nothing, and reports the expected result.

        If a key is pending, the ledger first rotates to it, once nothing else refuses
        (`force_reason`: as for `rotate`). If a migration was interrupted before that key came, it
        is finished first, under the active key. If this call is interrupted, run it again. The old
        generation stays, closed, and needs its keys until it is purged.

        Raises the errors of `rotate`, and MigrationInProgress if another migrator is at work.
        Raises TamperedEvent or MissingKey, with the list, if events can't be opened: destroy their
        secrets, or give up their key.

        If `target_url` is given, the ledger moves into that database, also under the same key.
        After the hand-over, only the target is written, and this database is only read: give the
        nodes that URL. The target must be empty, or hold this same unfinished move; else NotALedger
        or WrongLedger is raised. On PostgreSQL, the target is the schema `target_schema`, default
        this ledger's.

        If the move is interrupted after the hand-over, the same call finishes it. For that, the
        source is open already, or is opened with `read_only` and `read_moved`.
        """
        moving = None if target_url is None else Destination.of(target_url, target_schema)
        return self._migrate(moving, dry_run, actor, force_reason, on_progress)

    async def _migrate(
        self,
        moving: Destination | None,
        dry_run: bool,
        actor: str | None,
        force_reason: str | None,
        on_progress: OnProgress | None,
    ) -> MigrationReport:
        encode_metadata(actor=actor, reason=force_reason)
        return await migrate_or_move(
            self._session,
            moving,
            dry_run=dry_run,
            actor=actor,
            force_reason=force_reason,
            on_progress=on_progress,
        )

    def abandon_migration(
        self,
        target_url: str | URL | AsyncEngine | None = None,
        *,
        target_schema: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Coroutine[Any, Any, PurgeReport]:
        """Delete the generation that is being built. The generation in use is untouched.

        Of a move: here, and with `target_url` in the target too. Raises LedgerMoved once the ledger
        has been handed over, and WrongLedger if the target holds anything else than the half of
        such a move.
        """
        moving = None if target_url is None else Destination.of(target_url, target_schema)
        return self._abandon_migration(moving, on_progress)

    async def _abandon_migration(
        self, moving: Destination | None, on_progress: OnProgress | None
    ) -> PurgeReport:
        self._session.check_writable()
        if moving is None:
            return await abandon(self._session, on_progress=on_progress)
        return await abandon_move(self._session, target=moving, on_progress=on_progress)

    async def key_history(self, *, check: bool = False) -> Sequence[KeyRecord]:
        """The audit of the keys: a record for each key, in order of activation.

        A record says in which states the key was, when and by whom, which events it protects, and
        which nodes say that they hold it. The hashes of the control stream are checked. With
        `check`, its events are opened too, and each key is marked. Raises TamperedEvent,
        LedgerUnavailable.
        """
        records = await self._audit(self._database, self._meta.ledger_id, await self.nodes())
        return await Checker(self._follower).keys(records) if check else records

    async def generations(self) -> Sequence[GenerationInfo]:
        """The generations that this database knows: their states, times, keys and sizes."""
        control = (await self._follower.follow(read=through_outages)).control
        return await list_generations(self._database, control)

    async def purge_generation(
        self, generation: int, *, actor: str | None = None, on_progress: OnProgress | None = None
    ) -> PurgeReport:
        """Delete a closed generation, so that nothing needs its keys any more.

        If it is interrupted, run it again. Raises InvalidValue if the generation is in use or never
        existed, and MigrationInProgress if it is being built. Raises TamperedEvent or MissingKey if
        an event of the generation in use does not open.
        """
        if number(generation, "generation") is None:
            raise InvalidValue("generation is the number of a generation, not None")
        self._session.check_writable()
        encode_metadata(actor=actor)
        return await purge(self._session, generation, actor=actor, on_progress=on_progress)

    async def loss(self, key_id: str) -> KeyEnd:
        """Report the events and secrets that `lost` would give up.

        Writes nothing. Raises KeyInUse, UnknownKey.
        """
        return await loss(self._session, key_id)

    async def census(self) -> Census:
        """Count the events of every generation, and the secrets, under each key.

        The rows are counted without opening any. Raises LedgerUnavailable.
        """
        control = (await self._follower.follow(read=through_outages)).control
        return await census(self._database, control.generation)

    async def reload_keys(self, keyring: Keyring | KeyProvider | None = None) -> bool:
        """Use the keys of `keyring` from now on, default the provider's that `open` was given.

        Returns whether these keys differ from the keys in hand. The gate applies, newest events
        included: if it refuses a keyring, nothing changes. Raises the errors of `open` about keys,
        and InvalidKey if the ledger has no provider to ask.
        """
        source = self._provider if keyring is None else key_source(keyring)
        del keyring
        report = await reload_keys(self._session, self._meta, source, self._level)
        if report is None:
            return False
        self._prover.verified.record(report)
        if report.level == "control":
            self._first_proof.forget()
        await self._session.announce()
        return True

    # --- reading ---------------------------------------------------------------------

    async def get(
        self,
        name: str,
        *,
        version: int | None = None,
        at: datetime | None = None,
        unproven: bool = False,
    ) -> SecretVersion:
        """Read the latest version of a secret, the version `version`, or the version at time `at`.

        `at`: an aware datetime; the last version that was recorded at or before it is read. If
        `open` was given `max_staleness`, the latest version may come from memory, within that
        bound.

        An earlier version is proven by the chain from the newest event, which must open, down to
        it. If the newest event can't be opened, `unproven=True` returns a stated version by its own
        seal alone (`.proven` is False then). Nobody can tell whether that version has ended since.

        Raises SecretNotFound, SecretDeleted, SecretDestroyed, MissingKey, TamperedEvent,
        LedgerUnavailable.
        """
        if self._view is not None and version is None and at is None:
            return await self._view.get(name)
        stream = normalise_name(name)
        return await get_secret(
            self._follower, stream, version=number(version, "version"), at=at, unproven=unproven
        )

    def history(self, name: str, *, check: bool = False) -> AsyncIterator[SecretInfo]:
        """Every version of a secret, oldest first, without its value.

        No row is opened, so one bad row hides no other row; each says `check="unverified"`. With
        `check`, each row is opened, and a row that fails is marked (`check`, `problem`).
        """
        return list_history(
            self._database, normalise_name(name), self._lost(), self._checker(check)
        )

    def list(
        self, prefix: str = "", deleted: bool = False, *, check: bool = False
    ) -> AsyncIterator[SecretInfo]:
        """The secrets whose names begin with `prefix`, in order of the names' bytes, without value.

        `deleted` adds deleted and destroyed secrets. `check`: as for `history`.
        """
        return list_secrets(
            self._database,
            prefix,
            deleted=deleted,
            lost=self._lost(),
            checker=self._checker(check),
        )

    def _checker(self, check: bool) -> Checker | None:
        return Checker(self._follower) if check else None

    def _lost(self) -> frozenset[bytes]:
        control = self._follower.standing.control
        return frozenset(key.fingerprint for key in control.keys if key.lost is not None)

    # --- proving and looking ---------------------------------------------------------

    async def verify(
        self, level: Level = "latest", on_progress: OnProgress | None = None
    ) -> VerifyReport:
        """Check the stored rows, and report: findings are returned, not raised.

        `level`: "control", "latest" (the newest event of every secret opens) or "full" (every
        event, every chain, the projections). Raises LedgerUnavailable, InvalidValue for another
        level, and TamperedEvent if the control stream itself is damaged, or if the log is shorter
        than this process has met it.
        """
        return await self._prover.verify(level, on_progress)

    async def nodes(self) -> Sequence[NodeInfo]:
        """The nodes that have the ledger open, and the boots that were refused.

        The nodes write these lines. `proof` says of each line whether a holder of a key wrote it. A
        missing line proves nothing.
        """
        standing = self._follower.standing
        active, judge = standing.control.active.fingerprint, Judge(standing.control, standing.keys)
        return await patiently(
            self._database, lambda c: list_nodes(c, self._database, active, judge)
        )

    async def key_status(self) -> Sequence[KeyStatus]:
        """The state of each key of the ledger, in order of activation, and of a pending key."""
        standing = await self._follower.follow()
        head = await patiently(self._database, lambda c: head_in_use(c, self._database))
        return key_status(standing, head)

    async def health(self, *, within: float | None = None) -> Health:
        """Whether this node can do its work, and why not. Raises only InvalidValue, for `within`.

        `within`: seconds; if the database has not answered within them, the node is unready.

        If the ledger was opened with `verify="control"`, its secrets have not been opened. The
        first call does that, as `verify()` would, and the node is ready only if nothing was found.
        """
        began = time.monotonic()
        if within is not None:
            within = seconds(within, "within")
        look = await self._observer.look(within)
        if not look.reasons:
            left = None if within is None else max(0.0, within - (time.monotonic() - began))
            unproven = await self._first_proof.missing(left)
            look = look if unproven is None else replace(look, reasons=(unproven,))
        tasks = (self._presence, self._key_watch, self._scrub)
        return assess(
            self._follower,
            self._prover.verified,
            look,
            node=self._session.identity.node,
            read_only=self._session.read_only,
            failures=[task.failure for task in tasks if task is not None and task.failure],
            warnings=self._settings_warnings,
        )

    # --- opening and closing ---------------------------------------------------------

    @property
    def keyring(self) -> Keyring:
        """The keys in hand; its repr shows none of them."""
        return self._follower.keyring

    def _start(self) -> None:
        for task in (self._presence, self._key_watch, self._scrub):
            if task is not None:
                task.start()

    async def _close(self) -> None:
        await to_its_end(self._close_all())

    async def _close_all(self) -> None:
        # The stack closes the last part first, and each part even if another part fails.
        last_first = (
            self._presence, self._view, self._writer, self._first_proof, self._observer,
            self._scrub, self._key_watch,
        )  # fmt: skip
        async with AsyncExitStack() as closing:
            for part in last_first:
                if part is not None:
                    closing.push_async_callback(part.close)


async def _nothing() -> None:
    """A read-only ledger has no line to renew."""


def _noted(intent: Intent) -> Intent:
    """`intent` with a copy of its metadata, which the caller may change while it waits.

    A bad actor, reason or metadata is refused here: that is its caller's own error.
    """
    if isinstance(intent, Destroy):
        encode_metadata(actor=intent.actor, reason=intent.reason)
        return intent
    text = encode_metadata(actor=intent.actor, user=intent.user)
    return replace(intent, user=parse_metadata(text).user) if intent.user else intent


def _version(written: Sequence[SecretInfo]) -> SecretVersion:
    (one,) = written
    assert isinstance(one, SecretVersion)  # noqa: S101  # a Put's fact carries its value
    return one
