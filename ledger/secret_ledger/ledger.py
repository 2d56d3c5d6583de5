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
    """An open ledger. Made by `SecretLedger.open`, which runs the boot gate."""

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
        """Open a ledger; the boot gate runs here, before anything is written.

        url: `sqlite+aiosqlite:///…`, `postgresql+asyncpg://…`, or a host's own AsyncEngine, which
            is not disposed of (a SQLite engine lends its URL, not its pool).
        keyring: the keys, or a provider of them.
        create: make a ledger where the database holds nothing at all.
        verify: "control", "latest" (every secret's head opens) or "full" (every event, and the
            projections). "incremental": what is new since a verification that was attested, and a
            sample of the rest, which is gone over once the ledger is open, with the outcome in
            `health`; "latest" where nothing is attested yet.
        read_only: announce and write nothing.
        read_moved: with `read_only`, also open a ledger that has moved to another database. It
            reads what was left here, as it was at the hand-over. Otherwise that is LedgerMoved.
        ledger_id: the ledger that this must be; no other is opened, and none is made. The
            setting OS_SECRET_LEDGER_ID does the same.
        schema: PostgreSQL's schema, default OS_SECRET_LEDGER_SCHEMA, else `secret_ledger`.
        node: the name to announce, default the host's.
        projections: kept in the append's own transaction, default `sys_secret`.
        watch_keys: ask the provider for the keys again every so many seconds, and go on with
            what it gives if the gate lets it pass; see `SecretLedger.reload_keys`.
        heartbeat: seconds between two renewals of this node's line; it is live for three of them.
        patience: seconds that a write rides out a database that can't be reached, or is locked.
        scrub_rate: rows a second that are gone over after an incremental boot.
        max_staleness: keep the secrets that are read in memory, still sealed, and answer `get` of
            their latest version from there, where that is proven to have been the latest one at
            most so many seconds before the call. This process's own writes are always seen. 0 is
            always fresh: SQLite tells without a statement whether anybody has written, PostgreSQL
            is asked by a statement, which the reads that are waiting share. None: every read goes
            to the database.
        when_stale: what a read of such a secret does while that can't be proven, because the
            database is out of reach or slow: it reads from the "database" all the same, or is to
            "refuse", with LedgerUnavailable. It is never answered with something older.
        view_bytes: how much memory that may take; what was not read for longest goes first.

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
        """What the boot gate let pass and an operator should hear of."""
        self.created: bool = booted.created
        """Whether this call made the ledger."""

    # --- what it is ------------------------------------------------------------------

    @property
    def ledger_id(self) -> str:
        """The ledger's id: 32 hex digits, for OS_SECRET_LEDGER_ID."""
        return self._meta.ledger_id.hex()

    @property
    def moved_to(self) -> str | None:
        """The database that the ledger has moved to, as this process has met it; None if it has
        not. This process goes on reading here, and is not ready."""
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
        """What is kept in memory, and how it serves; None without `max_staleness`."""
        return None if self._view is None else self._view.status

    @property
    def read_only(self) -> bool:
        """Whether it was opened to be read only."""
        return self._session.read_only

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

        `items`: a mapping of names to values, or tuples (name, value[, expect]); no name
        twice. Raises what `put` raises.
        """
        return self._put_many(wrap_items(items), actor)

    async def _put_many(
        self, wrapped: Sequence[tuple[Any, Wrapped, Any]], actor: str | None
    ) -> Sequence[SecretVersion]:
        values = [unwrap(value) for _, value, _ in wrapped]  # what is no item has no name either
        puts = [
            Put(normalise_name(name), value, expected(expect), actor, None)
            for (name, _, expect), value in zip(wrapped, values, strict=True)
        ]
        names = {put.stream for put in puts}
        if len(names) != len(puts):
            raise InvalidName("a name stands twice in one call (names are compared as NFC)")
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
        """End a live secret; its history is kept.

        Raises SecretNotFound, SecretDeleted where it is deleted already, SecretDestroyed.
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

        `version`: default, the last one before the deletion. Raises VersionConflict where
        the secret is live, SecretNotFound, SecretDestroyed, MissingKey.
        """
        wanted = number(version, "version")
        intent = Restore(normalise_name(name), wanted, expected(expect), actor, metadata)
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
        self._session.check_writable()
        # All intents of a call have one actor, and only a single one has metadata.
        return await self._writer.submit([_noted(intents[0]), *intents[1:]])

    # --- keys over time --------------------------------------------------------------

    async def rotate(
        self,
        new_key: Key | None = None,
        *,
        actor: str | None = None,
        force_reason: str | None = None,
    ) -> Rotation:
        """Make the pending key, or `new_key`, the one that new events are sealed under.

        With `new_key` this process goes on with that one as its current key, the others as
        previous ones, also where the rotation is refused. Nothing is re-encrypted: `rekey`
        does that. Where the key is active already, the report says so. Raises NodeNotReady,
        naming the nodes, while a live node can't read the key, unless `force_reason` is given,
        which is recorded; KeyReused for a key that was active before, MigrationInProgress,
        StaleKey, LedgerUnavailable.
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
        """Seal the latest event of every secret again under the active key.

        Online, resumable, and idempotent; older versions stay under their keys. Heads that
        don't open are skipped and reported (`.ok`, `.findings`). Raises StaleKey,
        LedgerUnavailable.
        """
        self._session.check_writable()
        encode_metadata(actor=actor)
        return await rekey(self._session, actor=actor, on_progress=on_progress)

    async def retire(
        self, key_id: str, *, actor: str | None = None, on_progress: OnProgress | None = None
    ) -> KeyEnd:
        """Certify that nothing needs a key any more, so that it can be dropped.

        Where that was done before, the report says so. Raises KeyInUse while any event of
        any generation needs it (the message says where they are, and the way on), and for
        the active key; UnknownKey.
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
        """Give up a superseded key that is gone for good: nothing undoes it.

        Its versions are `SecretDestroyed` from then on, and nothing waits for it any more.
        Raises KeyInUse for the active key, and for one that is in the keyring; UnknownKey.
        """
        self._session.check_writable()
        encode_metadata(actor=actor, reason=reason)
        return await record_loss(
            self._session, key_id, reason=reason, actor=actor, on_progress=on_progress
        )

    # Not `async def` either, these two: the text of a URL may hold a password.

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
        """Replay the whole history under the active key into the next generation, here or in
        another database.

        Positions, versions, times, metadata and values stay as they are; writers and readers
        go on meanwhile, and follow within the same call when it is put in use. `dry_run` reads
        all, writes nothing, and says what would happen. A pending key is rotated to before
        (`force_reason` as there), once nothing else refuses; if a migration was interrupted
        before that key came, it is finished first, under the active key. Interrupted, it is run
        again. The old generation stays, closed, and needs its keys until it is purged. Raises
        what `rotate` raises; MigrationInProgress beside another migrator; TamperedEvent or
        MissingKey, with the list, where events can't be opened: destroy them, or give up their
        key.

        With `target_url` the ledger moves there, under the same key too: from the hand-over
        on it is written there alone, and here only read. That URL must be given to its nodes.
        The target is empty (PostgreSQL: `target_schema`, default this ledger's), or holds this
        same unfinished move; else NotALedger or WrongLedger. Interrupted after the hand-over,
        it is finished by the same call on a ledger that is open, or that is opened with
        `read_only` and `read_moved`.
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
        """Throw a generation that is being built away; the one in use is untouched.

        Of a move: here, and with `target_url` there too. Raises LedgerMoved once it has been
        handed over; WrongLedger where the target is not what such a move has left.
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
        """The audit: for each key, in order of activation, when it was what and by whom, what
        it protects, and which nodes say that they hold it.

        The hashes of the control stream are checked. With `check` its events are opened too, and
        each key is marked. Raises TamperedEvent, LedgerUnavailable.
        """
        records = await self._audit(self._database, self._meta.ledger_id, await self.nodes())
        return await Checker(self._follower).keys(records) if check else records

    async def generations(self) -> Sequence[GenerationInfo]:
        """Every generation there ever was: its state, its times, its keys, its size."""
        control = (await self._follower.follow(read=through_outages)).control
        return await list_generations(self._database, control)

    async def purge_generation(
        self, generation: int, *, actor: str | None = None, on_progress: OnProgress | None = None
    ) -> PurgeReport:
        """Delete a closed generation, so that nothing needs its keys any more.

        Interrupted, it is run again. Raises InvalidValue for one that is in use or never was.
        """
        if number(generation, "generation") is None:
            raise InvalidValue("generation is the number of a generation, not None")
        self._session.check_writable()
        encode_metadata(actor=actor)
        return await purge(self._session, generation, actor=actor, on_progress=on_progress)

    async def loss(self, key_id: str) -> KeyEnd:
        """What `lost` would give up. Raises what it raises; nothing is written."""
        return await loss(self._session, key_id)

    async def census(self) -> Census:
        """What lies under which key: the events of every generation, the heads of this one.

        Counted from the rows, without opening any. Raises LedgerUnavailable.
        """
        control = (await self._follower.follow(read=through_outages)).control
        return await census(self._database, control.generation)

    async def reload_keys(self, keyring: Keyring | KeyProvider | None = None) -> bool:
        """Go on with the keys of `keyring`, default those of the provider given to `open`;
        whether they are others than those in hand.

        The gate applies, heads included: a keyring that it refuses changes nothing. Raises
        what `open` raises for the keys, and InvalidKey where there is no provider to ask.
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
        """The latest version of a secret, version `version`, or the last one recorded at or
        before `at` (an aware datetime). The latest may come from memory, within the bound of
        `max_staleness`, if `open` was given one.

        An earlier version is proven by the chain down to it from the newest event, which opens.
        If the newest event can't be opened, `unproven=True` gives a stated version by its own
        seal alone (`.proven` is False then): whether it has ended since, nobody can tell.

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

        No row is opened, so that one bad row hides no other; each says `check="unverified"`.
        With `check` each row is opened, and one that fails is marked (`check`, `problem`).
        """
        return list_history(
            self._database, normalise_name(name), self._lost(), self._checker(check)
        )

    def list(
        self, prefix: str = "", deleted: bool = False, *, check: bool = False
    ) -> AsyncIterator[SecretInfo]:
        """The secrets whose names begin with `prefix`, in order of the names' bytes, without
        their values. `deleted` adds deleted and destroyed ones. `check`: as for `history`."""
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
        """Check what is stored and report: findings are returned, not raised.

        `level`: "control", "latest" (every head opens) or "full" (every event, every chain,
        the projections). Raises LedgerUnavailable, or TamperedEvent where the control
        stream itself is damaged.
        """
        return await self._prover.verify(level, on_progress)

    async def nodes(self) -> Sequence[NodeInfo]:
        """The nodes that have the ledger open, and the boots that were refused.

        The nodes write these lines. `proof` says of each whether a holder of a key wrote it.
        That a line is missing proves nothing.
        """
        standing = self._follower.standing
        active, judge = standing.control.active.fingerprint, Judge(standing.control, standing.keys)
        return await patiently(
            self._database, lambda c: list_nodes(c, self._database, active, judge)
        )

    async def key_status(self) -> Sequence[KeyStatus]:
        """Each key of the ledger, in order of activation, and a pending one."""
        standing = await self._follower.follow()
        head = await patiently(self._database, lambda c: head_in_use(c, self._database))
        return key_status(standing, head)

    async def health(self, *, within: float | None = None) -> Health:
        """Whether this node can do its work, and why not. Never raises but for a wrong `within`.

        A ledger that was opened with `verify="control"` has not opened its secrets: the first
        call does that, as `verify()` would, and is ready only if nothing was found.
        `within`: seconds; a database that has not answered by then makes it unready.
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
        # The last one first; each of them, whatever becomes of the others.
        last_first = (
            self._presence, self._view, self._writer, self._first_proof, self._observer,
            self._scrub, self._key_watch,
        )  # fmt: skip
        async with AsyncExitStack() as closing:
            for part in last_first:
                if part is not None:
                    closing.push_async_callback(part.close)


async def _nothing() -> None:
    """Read-only: there is no line to renew."""


def _noted(intent: Intent) -> Intent:
    """`intent` with a copy of its metadata, which the caller may change while it waits.

    A bad actor, reason or metadata is raised here: it is its caller's own error.
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
