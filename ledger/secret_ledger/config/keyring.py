"""The keys that a process holds, and where it has them from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import Protocol, cast

from secret_ledger.errors import InvalidKey
from secret_ledger.model.derivation import LEDGER_ID_BYTES
from secret_ledger.model.keys import Key

__all__ = ["KeyProvider", "Keyring", "key_source", "keyring_of"]


@dataclass(frozen=True, slots=True, init=False)
class Keyring:
    """The keys that a process holds: the configured current one, and previous ones.

    Keys of the same bytes become one, which keeps the label if one of them has one. Raises
    InvalidKey where a key has two labels, or a label two keys.
    """

    current: Key
    previous: tuple[Key, ...] = ()
    is_ephemeral: bool = False
    """True if the key dies with the process; such a keyring opens in-memory databases only."""

    def __init__(
        self, current: Key, previous: Iterable[Key] = (), is_ephemeral: bool = False
    ) -> None:
        merged = _keyring(current, previous)
        del current, previous  # a key's text, which a traceback with locals would show
        if isinstance(merged, InvalidKey):
            del self  # has nothing yet that its repr could show
            raise merged
        object.__setattr__(self, "current", merged[0])
        object.__setattr__(self, "previous", merged[1:])
        object.__setattr__(self, "is_ephemeral", is_ephemeral)

    @classmethod
    def of(cls, current: Key, previous: Iterable[Key] = ()) -> Keyring:
        """A keyring of keys in hand."""
        try:
            return cls(current, previous)
        finally:
            del current, previous

    @classmethod
    def ephemeral(cls) -> Keyring:
        """A new random key that is kept nowhere: for tests, on an in-memory database only."""
        return cls(Key.generate(), is_ephemeral=True)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Keyring:
        """The keyring of the `OS_SECRET_…` settings, of `os.environ` by default; see
        `config.environment`.

        Raises NoStableKey, InvalidKey or InsecureKeyFile. Reads files; in development it may
        mint a key.
        """
        # Sources build keys, so the import can only go this way round at call time.
        from secret_ledger.config.environment import Environment, keyring_from_env

        # No default of the parameter: `help` would show every value of the environment.
        settings = Environment(os.environ if environ is None else environ)
        del environ  # its repr shows every value, in a traceback with locals too
        return keyring_from_env(settings)

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key, the current one first."""
        return (self.current, *self.previous)


class KeyProvider(Protocol):
    """Where root keys come from: the seam for a KMS, Vault, PKCS#11 or custody per tenant."""

    async def keyring(self) -> Keyring:
        """The keys to open a ledger with. Called once, at boot."""
        ...


def _keyring(current: object, previous: object) -> tuple[Key, ...] | InvalidKey:
    """The keys of a keyring, the current one first, or what is wrong with them."""
    given = (current, *(previous if isinstance(previous, Iterable) else [previous]))
    keys = tuple(key for key in given if isinstance(key, Key))
    if len(keys) == len(given):
        try:
            return _merge(keys)
        except InvalidKey as error:
            return error.with_traceback(None)
    kind = next(type(key).__name__ for key in given if not isinstance(key, Key))
    return InvalidKey(
        f"a keyring is made of Keys, one current and a list of previous ones, not of {kind}",
        hint="Keyring.of(Key.parse(text), previous=[Key.parse(text)])",
    )


def key_source(given: object) -> Keyring | KeyProvider | InvalidKey:
    """What a caller gave for keys, or what is wrong with it: a key's text, say, which no frame
    that is part of a traceback with locals may hold."""
    if isinstance(given, Keyring):
        return given
    if callable(getattr(given, "keyring", None)):
        return cast("KeyProvider", given)
    return InvalidKey(
        f"the keys are a Keyring or a KeyProvider, not {type(given).__name__}",
        hint="Keyring.from_env(), or Keyring.of(Key.parse(text))",
    )


async def keyring_of(source: Keyring | KeyProvider | InvalidKey) -> Keyring:
    """The keyring, or the provider's. Raises InvalidKey if it is none, and what that raises."""
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
    del answer  # a key, likely
    raise InvalidKey(
        f"the key provider {type(source).__name__} gave {kind}, which is no Keyring",
        hint="return Keyring.of(Key.parse(text)) from its keyring()",
    )


def _merge(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """The keys in order, each root once; labels and roots stand one to one."""
    merged: dict[bytes, Key] = {}
    root_of_label: dict[str, bytes] = {}
    for key in keys:
        # A fingerprint stands for the root: public, and the ledger id does not matter here.
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
