"""How a verb opens the ledger: the settings, the boot gate, and a look without the gate."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from secret_ledger.cli.options import Common
from secret_ledger.cli.output import Output
from secret_ledger.cli.usage import UsageError
from secret_ledger.errors import (
    KeyFingerprintMismatch,
    LedgerError,
    MissingKey,
    NoStableKey,
    StaleKey,
    TamperedEvent,
)

if TYPE_CHECKING:
    from secret_ledger.config.keyring import Keyring
    from secret_ledger.ledger import SecretLedger
    from secret_ledger.rules.findings import OpenLevel
    from secret_ledger.unverified import UnverifiedLedger

__all__ = ["Look", "database_url", "keyring", "look", "opened"]

REFUSALS: Final = (KeyFingerprintMismatch, StaleKey, MissingKey, TamperedEvent)
"""Refusals of the gate for keys and content. An operator may still look at the rows: they tell
why the nodes of a fleet can't boot."""


@dataclass(frozen=True, slots=True)
class Look:
    """A ledger that a verb only reads: verified by the gate, or unverified."""

    ledger: SecretLedger | UnverifiedLedger
    refusal: LedgerError | None
    """Why the ledger is unverified; None if it is verified."""

    @property
    def verified(self) -> bool:
        """True if the ledger has passed the gate."""
        return self.refusal is None


def database_url(common: Common) -> str:
    """Return `--url`, else the setting OS_SECRET_LEDGER_URL.

    Raises UsageError if neither is given, or if the ledger would be gone when the command ends.
    """
    from secret_ledger.config.environment import LEDGER_URL, setting
    from secret_ledger.store.address import address_of
    from secret_ledger.store.sqlite.url import is_in_memory

    url = common.url if common.url is not None else setting(os.environ, LEDGER_URL)
    if url:
        address = address_of(url)
        if address is not None and is_in_memory(address):
            raise UsageError(
                "a ledger in memory is gone when the command ends",
                hint="name a file: sqlite+aiosqlite:///path/to/file.db",
            )
        return url
    raise UsageError(
        "no database is named",
        hint=f"export {LEDGER_URL}=sqlite+aiosqlite:///path/to/file.db (or {LEDGER_URL}_FILE=…),"
        " or give --url",
    )


def keyring() -> Keyring:
    """Return the keys of the settings. Raises what `Keyring.from_env` raises."""
    from secret_ledger.config.keyring import Keyring

    return Keyring.from_env()


@asynccontextmanager
async def opened(
    common: Common,
    output: Output,
    *,
    read_only: bool = False,
    read_moved: bool = False,
    create: bool = False,
    keys: Keyring | None = None,
    verify: OpenLevel = "control",
) -> AsyncIterator[SecretLedger]:
    """Open the ledger through the gate, and print its warnings on stderr."""
    from secret_ledger.ledger import SecretLedger

    url = database_url(common)
    async with SecretLedger.open(
        url,
        keys or keyring(),
        create=create,
        verify=verify,
        read_only=read_only,
        read_moved=read_moved,
        schema=common.schema,
    ) as ledger:
        for warning in ledger.warnings:
            if warning != ledger.database.race:  # about the machine: init and health print it
                output.warning(warning)
        if ledger.created:
            output.warning(
                f"{ledger.database.place} held no ledger, so a new ledger was made; pin it:"
                f" OS_SECRET_LEDGER_ID={ledger.ledger_id}"
            )
        yield ledger


@asynccontextmanager
async def look(
    common: Common,
    output: Output,
    *,
    say: bool = True,
    verify: OpenLevel = "control",
    read_moved: bool = False,
) -> AsyncIterator[Look]:
    """Open the ledger to read it. If no key is set, or the gate refuses, it is unverified.

    `say`: print on stderr why the ledger is unverified. Raises InvalidKey or InsecureKeyFile if a
    key setting is wrong in itself, and WrongLedger if another ledger is pinned.
    """
    database_url(common)
    async with AsyncExitStack() as stack:
        try:
            ledger = await stack.enter_async_context(
                opened(common, output, read_only=True, verify=verify, read_moved=read_moved)
            )
        except (NoStableKey, *REFUSALS) as error:
            refusal = error
        else:
            yield Look(ledger, None)
            return
        if say:
            output.unverified(refusal)
        yield Look(await stack.enter_async_context(_unverified(common, read_moved)), refusal)


@asynccontextmanager
async def _unverified(common: Common, read_moved: bool) -> AsyncIterator[UnverifiedLedger]:
    from secret_ledger.config.environment import pinned_ledger_id
    from secret_ledger.rules.gate import check_pinned
    from secret_ledger.unverified import open_unverified

    async with open_unverified(
        database_url(common), schema=common.schema, read_moved=read_moved
    ) as ledger:
        check_pinned(bytes.fromhex(ledger.ledger_id), pinned_ledger_id(os.environ))
        yield ledger
