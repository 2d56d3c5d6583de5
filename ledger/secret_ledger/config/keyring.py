"""The keys that a process holds, and the providers that give them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import Protocol, cast

from secret_ledger.config.environment import Environment, keys_from_env
from secret_ledger.errors import InvalidKey
from secret_ledger.model.derivation import LEDGER_ID_BYTES
from secret_ledger.model.keys import Key

__all__ = ["KeyProvider", "Keyring", "key_source", "keyring_of"]


@dataclass(frozen=True, slots=True, init=False)
class Keyring:
    """The keys that a process holds: the configured current key, and previous keys.

    Keys of the same bytes become one key, which keeps the label if any of them has a label.
    Raises InvalidKey if a key has two labels, if a label has two keys, or if a given key is no Key.
    """

    current: Key
    previous: tuple[Key, ...] = ()
    is_ephemeral: bool = False
    """True if the key dies with the process. Such a keyring opens in-memory databases only."""

    def __init__(
        self, current: Key, previous: Iterable[Key] = (), is_ephemeral: bool = False
    ) -> None:
        merged = _keyring(current, previous)
        del current, previous  # a key's text, which a traceback with locals would show
        if isinstance(merged, InvalidKey):
            del self  # its fields are not set yet, so its repr would fail
            raise merged
        object.__setattr__(self, "current", merged[0])
        object.__setattr__(self, "previous", merged[1:])
        object.__setattr__(self, "is_ephemeral", is_ephemeral)

    @classmethod
    def of(cls, current: Key, previous: Iterable[Key] = ()) -> Keyring:
        """A keyring of these keys."""
        try:
            return cls(current, previous)
        finally:
            del current, previous

    @classmethod
    def ephemeral(cls) -> Keyring:
        """A keyring of a new random key, kept nowhere: for tests on in-memory databases only."""
        return cls(Key.generate(), is_ephemeral=True)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Keyring:
        """The keyring of the `OS_SECRET_…` settings, by default read from `os.environ`.

        Reads files. In development it may mint a key. Raises NoStableKey, InvalidKey or
        InsecureKeyFile; `config.environment` says when.
        """
        # `os.environ` is no default of the parameter: `help` would show all its values.
        settings = Environment(os.environ if environ is None else environ)
        del environ  # its repr shows every value, in a traceback with locals too
        return cls.of(*keys_from_env(settings))

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key, the current key first."""
        return (self.current, *self.previous)


class KeyProvider(Protocol):
    """A source of root keys, such as a KMS, Vault, PKCS#11 or custody per tenant."""

    async def keyring(self) -> Keyring:
        """The keys to open a ledger with. Called at boot, and when the keys are reloaded."""
        ...


def _keyring(current: object, previous: object) -> tuple[Key, ...] | InvalidKey:
    """Returns an InvalidKey and raises nothing: a traceback would show this frame's arguments."""
    given = (current, *(previous if isinstance(previous, Iterable) else [previous]))
    keys = tuple(key for key in given if isinstance(key, Key))
    if len(keys) == len(given):
        try:
            return _merge(keys)
        except InvalidKey as error:
            return error.with_traceback(None)
    kind = next(type(key).__name__ for key in given if not isinstance(key, Key))
    return InvalidKey(
        f"a Keyring takes a current Key and a list of previous Keys, not {kind}",
        hint="Keyring.of(Key.parse(text), previous=[Key.parse(text)])",
    )


def key_source(given: object) -> Keyring | KeyProvider | InvalidKey:
    """`given` if it is a Keyring or KeyProvider, else the InvalidKey for the caller to raise.

    `given` may be a key's text, and a traceback with locals would show this frame."""
    if isinstance(given, Keyring):
        return given
    if callable(getattr(given, "keyring", None)):
        return cast("KeyProvider", given)
    return InvalidKey(
        f"the keys are a Keyring or a KeyProvider, not {type(given).__name__}",
        hint="Keyring.from_env(), or Keyring.of(Key.parse(text))",
    )


async def keyring_of(source: Keyring | KeyProvider | InvalidKey) -> Keyring:
    """The keyring, or the keyring that the provider gives.

    Raises InvalidKey if `source` is an InvalidKey, or if the provider gives no keyring. Errors of
    the provider pass through.
    """
    if isinstance(source, InvalidKey):
        raise source
    if isinstance(source, Keyring):
        return source
    answer: object = source.keyring()
    if not isawaitable(answer):
        del answer
        raise InvalidKey(
            f"keyring() of the key provider {type(source).__name__} is not `async def`",
            hint="async def keyring(self) -> Keyring",
        )
    answer = await answer
    if isinstance(answer, Keyring):
        return answer
    kind = type(answer).__name__
    del answer  # it may be a key
    raise InvalidKey(
        f"the key provider {type(source).__name__} gave {kind}, which is no Keyring",
        hint="return Keyring.of(Key.parse(text)) from its keyring()",
    )


def _merge(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """Keeps the order, and each root once. A root has one label at most, a label has one root."""
    merged: dict[bytes, Key] = {}
    root_of_label: dict[str, bytes] = {}
    for key in keys:
        # The fingerprint stands for the root, because it is public. Any ledger id serves here.
        mark = key.for_ledger(bytes(LEDGER_ID_BYTES)).fingerprint
        if key.key_id is not None and root_of_label.setdefault(key.key_id, mark) != mark:
            raise InvalidKey(
                f"two different keys of the keyring have the id {key.key_id}",
                hint="give each key an id of its own",
                key_id=key.key_id,
            )
        known = merged.setdefault(mark, key)
        if known.key_id is None:
            merged[mark] = key
        elif key.key_id not in (None, known.key_id):
            raise InvalidKey(
                f"one key of the keyring has two ids, {known.key_id} and {key.key_id}",
                hint="keep the id under which the ledger knows it",
                key_id=known.key_id,
            )
    return tuple(merged.values())
