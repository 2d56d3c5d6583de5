"""Everything that the ledger raises, in one tree.

::

    LedgerError                       exit  code
    ├── NoStableKey                    10   no_stable_key
    ├── KeyFingerprintMismatch         11   key_fingerprint_mismatch
    ├── TamperedEvent                  12   tampered_event
    ├── MissingKey                     13   missing_key
    ├── StaleKey                       14   stale_key
    ├── SchemaOutdated                 15   schema_outdated
    ├── SchemaTooNew                   15   schema_too_new
    ├── NotALedger                     15   not_a_ledger
    ├── InvalidKey                     16   invalid_key
    ├── InsecureKeyFile                16   insecure_key_file
    ├── WrongLedger                    17   wrong_ledger
    ├── KeyInUse                       18   key_in_use
    ├── UnknownKey                     18   unknown_key
    ├── KeyReused                      18   key_reused
    ├── KeyExhausted                   18   key_exhausted
    ├── SecretNotFound                 20   secret_not_found
    ├── SecretDeleted                  21   secret_deleted
    ├── SecretDestroyed                21   secret_destroyed
    ├── VersionConflict                22   version_conflict
    ├── InvalidName                    23   invalid_name
    ├── InvalidValue                   23   invalid_value
    ├── ValueTooLarge                  23   value_too_large
    ├── MigrationInProgress            30   migration_in_progress
    ├── Incomplete                     30   incomplete
    ├── ProjectionFailed               31   projection_failed
    ├── LedgerUnavailable              40   ledger_unavailable
    ├── NodeNotReady                   41   node_not_ready
    └── LedgerMoved                    42   ledger_moved

Each error carries a stable `code` for programs, a `hint` that says the way out, if any, and the
`exit_code` of the command line. Tracebacks show the hint. No error ever holds a secret's value,
and a driver's exception is never its cause: drivers put row values into their messages.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

__all__ = [
    "Incomplete",
    "InsecureKeyFile",
    "InvalidKey",
    "InvalidName",
    "InvalidValue",
    "KeyExhausted",
    "KeyFingerprintMismatch",
    "KeyInUse",
    "KeyReused",
    "LedgerError",
    "LedgerMoved",
    "LedgerUnavailable",
    "MigrationInProgress",
    "MissingKey",
    "NoStableKey",
    "NodeNotReady",
    "NotALedger",
    "ProjectionFailed",
    "SchemaOutdated",
    "SchemaTooNew",
    "SecretDeleted",
    "SecretDestroyed",
    "SecretNotFound",
    "StaleKey",
    "TamperedEvent",
    "UnknownKey",
    "ValueTooLarge",
    "VersionConflict",
    "WrongLedger",
]


class LedgerError(Exception):
    """The root of the tree: `except LedgerError` catches all errors that the ledger raises.

    `message` names the fault, and `hint` the way out. `details` are the facts behind the message
    (names, positions, fingerprints as hex), for logs and JSON.
    """

    code: ClassVar[str] = "ledger_error"
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        self.details = details
        if self.hint:
            # A traceback shows it too: the reader of a refused boot's log needs the way out.
            self.add_note(f"hint: {self.hint}")

    def __str__(self) -> str:
        return self.message

    @property
    def outcome_unknown(self) -> bool:
        """Whether the write that failed may have been committed all the same."""
        return bool(self.details.get("outcome_unknown", False))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.details)

    def __copy__(self) -> Self:
        # `__reduce__` can't make a host's subclass that takes other parameters.
        copied = type(self).__new__(type(self), *self.args)
        copied.__dict__ |= {**self.__dict__, "__notes__": [*getattr(self, "__notes__", ())]}
        copied.__cause__ = self.__cause__  # what a projection's code raised
        return copied


def _rebuild(
    cls: type[LedgerError], message: str, hint: str, details: dict[str, Any]
) -> LedgerError:
    return cls(message, hint=hint, **details)


# --- keys ---------------------------------------------------------------------------


class NoStableKey(LedgerError):
    """No key is configured, and the ledger makes none up. Nothing was written."""

    code, exit_code = "no_stable_key", 10


class InvalidKey(LedgerError):
    """A key's text is not 32 well-encoded bytes, or a key setting contradicts another."""

    code, exit_code = "invalid_key", 16
    default_hint = (
        "give it whole, as `secret-ledger keygen` printed it; a new key opens nothing that is"
        " stored under another"
    )


class InsecureKeyFile(LedgerError):
    """Others can read or write a key file, or it can't be read at all."""

    code, exit_code = "insecure_key_file", 16


class KeyFingerprintMismatch(LedgerError):
    """The keys in hand are not the keys of this ledger."""

    code, exit_code = "key_fingerprint_mismatch", 11


class StaleKey(LedgerError):
    """The ledger has rotated to a key that this process does not hold."""

    code, exit_code = "stale_key", 14


class MissingKey(LedgerError):
    """An event lies under a key that was introduced here and is not in the keyring."""

    code, exit_code = "missing_key", 13


class KeyExhausted(LedgerError):
    """2^32 events were sealed under one key, the bound of AES-GCM with random nonces."""

    code, exit_code = "key_exhausted", 18


class KeyInUse(LedgerError):
    """The key can't end: it is active or held, or events still need it."""

    code, exit_code = "key_in_use", 18


class UnknownKey(LedgerError):
    """No key of that id was ever introduced in this ledger."""

    code, exit_code = "unknown_key", 18


class KeyReused(LedgerError):
    """A rotation to a key that was active before, or a migration under a superseded key."""

    code, exit_code = "key_reused", 18


# --- the log ------------------------------------------------------------------------


class TamperedEvent(LedgerError):
    """Something in the database does not authenticate, or breaks the rule of authority."""

    code, exit_code = "tampered_event", 12


class SchemaOutdated(LedgerError):
    """The schema is older than this release writes."""

    code, exit_code = "schema_outdated", 15


class SchemaTooNew(LedgerError):
    """The schema, or the event format, is newer than this release reads."""

    code, exit_code = "schema_too_new", 15


class NotALedger(LedgerError):
    """The database holds no ledger, and none may be made in it."""

    code, exit_code = "not_a_ledger", 15


class WrongLedger(LedgerError):
    """The database does not hold the ledger that the settings, or an operation, expect in it."""

    code, exit_code = "wrong_ledger", 17


class LedgerMoved(LedgerError):
    """The ledger lives in another database now."""

    code, exit_code = "ledger_moved", 42


class MigrationInProgress(LedgerError):
    """A migration is under way, or was interrupted."""

    code, exit_code = "migration_in_progress", 30


class Incomplete(LedgerError):
    """A long operation ended with part of its work undone."""

    code, exit_code = "incomplete", 30


# --- secrets ------------------------------------------------------------------------


class SecretNotFound(LedgerError):
    """The secret has no event, or none of that version or before that time."""

    code, exit_code = "secret_not_found", 20


class SecretDeleted(LedgerError):
    """The secret is deleted; its history is kept."""

    code, exit_code = "secret_deleted", 21


class SecretDestroyed(LedgerError):
    """The secret, or this version of it, is gone for good."""

    code, exit_code = "secret_destroyed", 21


class VersionConflict(LedgerError):
    """The secret is not in the state that the caller expected."""

    code, exit_code = "version_conflict", 22


class InvalidName(LedgerError):
    """No secret can have this name."""

    code, exit_code = "invalid_name", 23


class InvalidValue(LedgerError):
    """A value, an actor, metadata or another argument is of a kind that is not allowed."""

    code, exit_code = "invalid_value", 23


class ValueTooLarge(LedgerError):
    """A value over 1 MiB, a call over 16 MiB, or metadata over 4 KiB."""

    code, exit_code = "value_too_large", 23


class ProjectionFailed(LedgerError):
    """A projection's own code failed, and with it the operation that ran it.

    The exception of that code is the cause.
    """

    code, exit_code = "projection_failed", 31
    default_hint = (
        "mend the projection's code; until then open the ledger without this projection: it catches"
        " up when you give it again"
    )


# --- the surroundings ---------------------------------------------------------------


class LedgerUnavailable(LedgerError):
    """The database can't be reached or refuses to work.

    `outcome_unknown` is true if a write may or may not have been committed.
    """

    code, exit_code = "ledger_unavailable", 40


class NodeNotReady(LedgerError):
    """A live node can't read the key of a rotation, or this node can't do its work."""

    code, exit_code = "node_not_ready", 41
