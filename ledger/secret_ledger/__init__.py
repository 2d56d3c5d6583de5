"""Secret Ledger: an embeddable, async, event-sourced store for an application's secrets.

::

    from secret_ledger import Keyring, SecretLedger

    async with SecretLedger.open("sqlite+aiosqlite:///app.db", Keyring.from_env()) as ledger:
        await ledger.put("datasource/warehouse/password", "s3cr3t", actor="alice", expect=0)
        got = await ledger.get("datasource/warehouse/password")
        got.value.reveal()

No secret ever becomes undecryptable silently: opening replays the log and proves that the
keys in hand decrypt the latest event of every secret. asyncio only.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from secret_ledger.errors import *  # noqa: F403  # the whole tree; its own __all__ names it
from secret_ledger.errors import __all__ as _errors

if TYPE_CHECKING:
    from secret_ledger.census import Census, KeyCount, KeyUse
    from secret_ledger.events import Event, EventType
    from secret_ledger.findings import Finding, Progress, VerifyReport
    from secret_ledger.generations import GenerationInfo, PurgeReport
    from secret_ledger.health import Health, KeyStatus
    from secret_ledger.key_record import KeyMoment, KeyRecord
    from secret_ledger.key_sources import EnvKeyProvider, LocalKeyProvider
    from secret_ledger.keyring import KeyProvider, Keyring
    from secret_ledger.keys import Key
    from secret_ledger.migration import MigrationReport
    from secret_ledger.nodes import NodeInfo
    from secret_ledger.opening import DEFAULT, init_ledger, upgrade_schema
    from secret_ledger.rekeying import RekeyReport
    from secret_ledger.retirement import KeyEnd
    from secret_ledger.rotation import Rotation
    from secret_ledger.secret import Secret
    from secret_ledger.secret_ledger import SecretLedger, open_ledger
    from secret_ledger.unverified import UnverifiedLedger, open_unverified
    from secret_ledger.versions import SecretInfo, SecretVersion
    from secret_ledger.view import ViewStatus

__all__ = [  # noqa: PLE0604  # the error tree lists itself
    *_errors,
    "DEFAULT",
    "Census",
    "EnvKeyProvider",
    "Event",
    "EventType",
    "Finding",
    "GenerationInfo",
    "Health",
    "Key",
    "KeyCount",
    "KeyEnd",
    "KeyMoment",
    "KeyProvider",
    "KeyRecord",
    "KeyStatus",
    "KeyUse",
    "Keyring",
    "LocalKeyProvider",
    "MigrationReport",
    "NodeInfo",
    "Progress",
    "PurgeReport",
    "RekeyReport",
    "Rotation",
    "Secret",
    "SecretInfo",
    "SecretLedger",
    "SecretVersion",
    "UnverifiedLedger",
    "VerifyReport",
    "ViewStatus",
    "init_ledger",
    "open_ledger",
    "open_unverified",
    "upgrade_schema",
]

# Imported when first asked for (PEP 562): SQLAlchemy takes most of a second, which neither
# `secret-ledger --help` nor a module that only catches our errors should wait for.
_HOMES = {
    "Census": "census",
    "DEFAULT": "opening",
    "EnvKeyProvider": "key_sources",
    "Event": "events",
    "EventType": "events",
    "Finding": "findings",
    "GenerationInfo": "generations",
    "Health": "health",
    "Key": "keys",
    "KeyCount": "census",
    "KeyEnd": "retirement",
    "KeyMoment": "key_record",
    "KeyProvider": "keyring",
    "KeyRecord": "key_record",
    "KeyStatus": "health",
    "KeyUse": "census",
    "Keyring": "keyring",
    "LocalKeyProvider": "key_sources",
    "MigrationReport": "migration",
    "NodeInfo": "nodes",
    "Progress": "findings",
    "PurgeReport": "generations",
    "RekeyReport": "rekeying",
    "Rotation": "rotation",
    "Secret": "secret",
    "SecretInfo": "versions",
    "SecretLedger": "secret_ledger",
    "SecretVersion": "versions",
    "UnverifiedLedger": "unverified",
    "VerifyReport": "findings",
    "ViewStatus": "view",
    "init_ledger": "opening",
    "open_ledger": "secret_ledger",
    "open_unverified": "unverified",
    "upgrade_schema": "opening",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"secret_ledger.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
