"""Where root keys come from: the `OS_SECRET_…` settings.

Production never mints a key: if no key is set, NoStableKey says which places were searched. Only
`OS_SECRET_MODE=development` mints a key, once. `settings` says how a setting is read, `key_files`
which key files are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from secret_ledger.config.key_files import (
    KeyFile,
    dev_key_line,
    is_dev_minted,
    local_key,
    read_file,
)
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
    "Environment",
    "keys_from_env",
    "ledger_schema",
    "mode",
    "parse_ledger_id",
    "pinned_ledger_id",
    "setting",
]

_CREDENTIAL: Final = "os-secret-key"
_LABELLED: Final = re.compile(rb"([^=]*)=(.{43,})", re.DOTALL)
NO_KEY_HINT: Final = (
    "if the ledger exists, give this process its key; only for a new ledger make one, keep a"
    " copy in a safe place, and give it to every node:\n"
    "  export OS_SECRET_KEY=$(secret-ledger keygen)\n"
    "or, as a file:\n"
    "  secret-ledger keygen --file os-secret-key;"
    ' export OS_SECRET_KEY_FILE="$PWD/os-secret-key"'
)


def keys_from_env(environ: Mapping[str, str] | Environment) -> tuple[Key, tuple[Key, ...]]:
    """The current key and the previous keys of the settings.

    Blocking: it reads files, and in development it may mint a key.

    Raises NoStableKey if only previous keys are set, or, in production, if no key or a
    development key is set. Raises InvalidKey or InsecureKeyFile if a setting can't be used.
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
        return _key(source, text, label), previous
    if previous:
        raise NoStableKey(f"{PREVIOUS_KEYS} is set, but there is no current key", hint=NO_KEY_HINT)
    if development:
        return local_key(home_directory(settings), label), ()
    raise _no_stable_key(settings)


def _current(settings: Environment) -> tuple[str, Secret | None]:
    text = secret_setting(settings, KEY)
    if text is not None or settings.credentials is None:
        return (f"{KEY}_FILE" if settings.get(KEY) is None else KEY), text
    file = KeyFile.at(Path(settings.credentials, _CREDENTIAL))
    text = read_file(file, private=True, credentials=settings.credentials, missing_ok=True)
    return file.name, None if text is None else trimmed(text, file.name)


def _previous(settings: Environment) -> tuple[Key, ...]:
    """The decrypt-only keys, in the order of the setting.

    Blank lines between entries are layout. A blank entry between commas is refused: a failed
    substitution has left out a key. Comments are not allowed. An empty file holds no keys: it
    waits for the first rotation, which then needs no restart.
    """
    text = secret_setting(settings, PREVIOUS_KEYS, empty_file=True)
    if text is None:
        return ()
    if is_dev_minted(text):
        raise _development_only(PREVIOUS_KEYS)
    keys: list[Key] = []
    # This frame keeps Secrets only, because a traceback with locals may show it.
    for piece in [Secret(piece) for piece in text.reveal().split(b",")]:
        trimmed(piece, f"entry {len(keys) + 1} of {PREVIOUS_KEYS}")
        for line in [Secret(line.strip()) for line in piece.reveal().split(b"\n")]:
            if line.reveal():
                keys.append(_entry(f"entry {len(keys) + 1} of {PREVIOUS_KEYS}", line))
    return tuple(keys)


def _entry(source: str, entry: Secret) -> Key:
    """Reads one `[id=]key`. Base64 padding is no separator: fewer than 43 characters follow it."""
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
        hint=NO_KEY_HINT,
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
        f"no key is set in production mode; looked at {', '.join(looked_at)}; no key was made, and"
        " nothing was written",
        hint=NO_KEY_HINT,
        looked_at=looked_at,
    )
