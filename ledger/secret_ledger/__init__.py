"""Secret Ledger: an embeddable, async, event-sourced store for an application's secrets.

::

    from secret_ledger import Keyring, SecretLedger

    async with SecretLedger.open("sqlite+aiosqlite:///app.db", Keyring.from_env()) as ledger:
        await ledger.put("datasource/warehouse/password", "s3cr3t", actor="alice", expect=0)
        got = await ledger.get("datasource/warehouse/password")
        got.value.reveal()

No secret ever becomes undecryptable silently: opening a ledger proves that the keys in hand
decrypt the newest event of every secret. asyncio only.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from secret_ledger.errors import *  # noqa: F403  # the whole tree; its own __all__ names it
from secret_ledger.errors import __all__ as _errors

if TYPE_CHECKING:
    from secret_ledger.config.keyring import KeyProvider, Keyring
    from secret_ledger.config.providers import EnvKeyProvider, LocalKeyProvider
    from secret_ledger.generations.migration import MigrationReport
    from secret_ledger.generations.purge import GenerationInfo, PurgeReport
    from secret_ledger.ledger import SecretLedger
    from secret_ledger.model.events import Event, EventType
    from secret_ledger.model.keys import Key
    from secret_ledger.model.secret import Secret
    from secret_ledger.model.versions import SecretInfo, SecretVersion
    from secret_ledger.nodes.health import Health, KeyStatus
    from secret_ledger.nodes.registry import NodeInfo
    from secret_ledger.opening import DEFAULT, init_ledger, upgrade_schema
    from secret_ledger.read.census import Census, KeyCount, KeyUse
    from secret_ledger.read.view import ViewStatus
    from secret_ledger.rotation.rekeying import RekeyReport
    from secret_ledger.rotation.retirement import KeyEnd
    from secret_ledger.rotation.rotation import Rotation
    from secret_ledger.rules.findings import Finding, Progress, VerifyReport
    from secret_ledger.rules.key_record import KeyMoment, KeyRecord
    from secret_ledger.unverified import UnverifiedLedger, open_unverified

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
    "open_unverified",
    "upgrade_schema",
]

# Imported when first asked for (PEP 562), because SQLAlchemy takes most of a second. Neither
# `secret-ledger --help` nor a module that only catches our errors should wait for that.
_HOMES = {
    "Census": "read.census",
    "DEFAULT": "opening",
    "EnvKeyProvider": "config.providers",
    "Event": "model.events",
    "EventType": "model.events",
    "Finding": "rules.findings",
    "GenerationInfo": "generations.purge",
    "Health": "nodes.health",
    "Key": "model.keys",
    "KeyCount": "read.census",
    "KeyEnd": "rotation.retirement",
    "KeyMoment": "rules.key_record",
    "KeyProvider": "config.keyring",
    "KeyRecord": "rules.key_record",
    "KeyStatus": "nodes.health",
    "KeyUse": "read.census",
    "Keyring": "config.keyring",
    "LocalKeyProvider": "config.providers",
    "MigrationReport": "generations.migration",
    "NodeInfo": "nodes.registry",
    "Progress": "rules.findings",
    "PurgeReport": "generations.purge",
    "RekeyReport": "rotation.rekeying",
    "Rotation": "rotation.rotation",
    "Secret": "model.secret",
    "SecretInfo": "model.versions",
    "SecretLedger": "ledger",
    "SecretVersion": "model.versions",
    "UnverifiedLedger": "unverified",
    "VerifyReport": "rules.findings",
    "ViewStatus": "read.view",
    "init_ledger": "opening",
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
