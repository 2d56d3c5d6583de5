"""Where root keys come from: the `OS_SECRET_…` settings, and the providers built on them.

Production never makes up a key: without one, NoStableKey says where it was looked for. Only
`OS_SECRET_MODE=development` may mint one, once. How a setting is read is the subject of
`settings`; what a key file must be like, of `key_files`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio.to_thread

from secret_ledger.config.key_files import (
    KeyFile,
    dev_key_line,
    is_dev_minted,
    local_key,
    read_file,
)
from secret_ledger.config.keyring import Keyring
from secret_ledger.config.settings import (
    HOME,
    KEY,
    KEY_ID,
    LEDGER_ID,
    LEDGER_SCHEMA,
    LEDGER_URL,
    MODE,
    PREVIOUS_KEYS,
    Environment,
    absolute_directory,
    home_directory,
    ledger_schema,
    mode,
    parse_ledger_id,
    pinned_ledger_id,
    secret_setting,
    setting,
    trimmed,
)
from secret_ledger.errors import InvalidKey, NoStableKey
from secret_ledger.model.keys import Key, check_key_id
from secret_ledger.model.secret import Secret

__all__ = [
    "HOME",
    "KEY",
    "KEY_ID",
    "LEDGER_ID",
    "LEDGER_SCHEMA",
    "LEDGER_URL",
    "MODE",
    "PREVIOUS_KEYS",
    "EnvKeyProvider",
    "Environment",
    "LocalKeyProvider",
    "keyring_from_env",
    "ledger_schema",
    "mode",
    "parse_ledger_id",
    "pinned_ledger_id",
    "setting",
]

_CREDENTIAL: Final = "os-secret-key"
_LABELLED: Final = re.compile(rb"([^=]*)=(.{43,})", re.DOTALL)
_NO_KEY_HINT: Final = (
    "if the ledger exists, give this process its key; only for a new ledger make one, keep a"
    " copy in a safe place, and give it to every node:\n"
    "  export OS_SECRET_KEY=$(secret-ledger keygen)\n"
    "or, as a file:\n"
    "  secret-ledger keygen --file os-secret-key;"
    ' export OS_SECRET_KEY_FILE="$PWD/os-secret-key"'
)


def keyring_from_env(environ: Mapping[str, str] | Environment) -> Keyring:
    """The keyring of the settings. Blocking: it reads files, and in development may mint one.

    Raises NoStableKey without a key (in production), or with previous keys alone; InvalidKey
    and InsecureKeyFile for what is set but can't be used.
    """
    settings = Environment(environ)
    del environ
    development = mode(settings) == "development"
    key_id = secret_setting(settings, KEY_ID)
    label = None if key_id is None else _label(key_id, KEY_ID)
    source, text = _current(settings)
    previous = _previous(settings)
    if text is not None:
        if is_dev_minted(text):
            if not development:
                raise _development_only(source)
            text = dev_key_line(text)
        return Keyring.of(_key(source, text, label), previous)
    if previous:
        raise NoStableKey(f"{PREVIOUS_KEYS} is set, but there is no current key", hint=_NO_KEY_HINT)
    if development:
        return Keyring.of(local_key(home_directory(settings), label))
    raise _no_stable_key(settings)


class EnvKeyProvider:
    """Root keys from the `OS_SECRET_…` settings: the way for production.

    `environ` defaults to the process's environment, read when the ledger opens.
    """

    __slots__ = ("_settings",)

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._settings = Environment(os.environ if environ is None else environ)

    async def keyring(self) -> Keyring:
        """The keyring of the settings; raises as `keyring_from_env`."""
        return await anyio.to_thread.run_sync(keyring_from_env, self._settings)


class LocalKeyProvider:
    """One key for this machine, minted on first use into `home`: for development only.

    `home` is an absolute directory, by default `OS_SECRET_HOME`, else `~/.secret-ledger`.
    """

    __slots__ = ("_home", "_settings")

    def __init__(
        self, home: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self._home = None if home is None else os.fspath(home)
        self._settings = Environment(os.environ if environ is None else environ)

    async def keyring(self) -> Keyring:
        """The machine's development key. Raises NoStableKey unless the mode is development."""
        return await anyio.to_thread.run_sync(self._keyring)

    def _keyring(self) -> Keyring:
        # A container without a volume would mint anew at each start, so a provider left in the
        # code of a deployment is refused there rather than served.
        if mode(self._settings) != "development":
            raise NoStableKey(
                f"a local development key is for {MODE}=development only", hint=_NO_KEY_HINT
            )
        home = (
            home_directory(self._settings)
            if self._home is None
            else absolute_directory(self._home, "home")
        )
        return Keyring.of(local_key(home))


def _current(settings: Environment) -> tuple[str, Secret | None]:
    """The current key's text, and the name of its source."""
    text = secret_setting(settings, KEY)
    if text is not None or settings.credentials is None:
        return (f"{KEY}_FILE" if settings.get(KEY) is None else KEY), text
    file = KeyFile.at(Path(settings.credentials, _CREDENTIAL))
    text = read_file(file, private=True, credentials=settings.credentials, missing_ok=True)
    return file.name, None if text is None else trimmed(text, file.name)


def _previous(settings: Environment) -> tuple[Key, ...]:
    """The decrypt-only keys, in the order of the setting.

    A blank line between entries is layout; a blank between commas is a failed substitution,
    so a key that is missing, and refused. There are no comments. An empty file holds no keys: it
    waits for the first rotation, which then needs no restart.
    """
    text = secret_setting(settings, PREVIOUS_KEYS, empty_file=True)
    if text is None:
        return ()
    if is_dev_minted(text):
        raise _development_only(PREVIOUS_KEYS)
    keys: list[Key] = []
    # Only Secrets are kept in this frame, which a traceback with locals may show.
    for piece in [Secret(piece) for piece in text.reveal().split(b",")]:
        trimmed(piece, f"entry {len(keys) + 1} of {PREVIOUS_KEYS}")
        for line in [Secret(line.strip()) for line in piece.reveal().split(b"\n")]:
            if line.reveal():
                keys.append(_entry(f"entry {len(keys) + 1} of {PREVIOUS_KEYS}", line))
    return tuple(keys)


def _entry(source: str, entry: Secret) -> Key:
    """One `[id=]key`. The padding of base64 is no separator: too little follows it."""
    if not _LABELLED.fullmatch(entry.reveal()):
        return _key(source, entry, None)
    label, _, key = (Secret(part) for part in entry.reveal().partition(b"="))
    return _key(source, key, _label(label, source))


def _label(text: Secret, source: str) -> str:
    try:
        return check_key_id(text.reveal().decode(errors="replace"))
    except InvalidKey as error:
        problem, hint = error.message, error.hint
    raise InvalidKey(f"{source}: {problem}", hint=hint, setting=source)


def _key(source: str, text: Secret, key_id: str | None) -> Key:
    try:
        return Key.parse(text, key_id)
    except InvalidKey as error:
        problem = error.message
    raise InvalidKey(f"{source}: {problem}", setting=source)


def _development_only(source: str) -> NoStableKey:
    return NoStableKey(
        f"{source} holds a key that was minted for development, which production refuses",
        hint=_NO_KEY_HINT,
        setting=source,
    )


def _no_stable_key(settings: Environment) -> NoStableKey:
    credential = (
        f"$CREDENTIALS_DIRECTORY/{_CREDENTIAL} (no such directory is set)"
        if settings.credentials is None
        else f"{str(Path(settings.credentials, _CREDENTIAL))!a} (no such file)"
    )
    looked_at = [f"{KEY} (not set)", f"{KEY}_FILE (not set)", credential]
    return NoStableKey(
        f"no key in production mode; looked at {', '.join(looked_at)};"
        " nothing was minted, nothing was written",
        hint=_NO_KEY_HINT,
        looked_at=looked_at,
    )
