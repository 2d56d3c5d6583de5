"""The `OS_SECRET_…` settings: one rule for all of them.

`NAME` holds the value, or `NAME_FILE` names the file that holds the value. If both are set, that
is an error. A blank value is an error too, because a failed substitution does not mean "unset".
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, final

from secret_ledger.config.key_files import KeyFile, read_file
from secret_ledger.errors import InvalidKey, InvalidValue, NoStableKey
from secret_ledger.model.secret import Secret

__all__ = [
    "HOME",
    "KEY",
    "KEY_ID",
    "LEDGER_ID",
    "LEDGER_SCHEMA",
    "LEDGER_TARGET_URL",
    "LEDGER_URL",
    "MODE",
    "PREVIOUS_KEYS",
    "Environment",
    "absolute_directory",
    "home_directory",
    "ledger_schema",
    "mode",
    "parse_ledger_id",
    "pinned_ledger_id",
    "secret_setting",
    "setting",
    "trimmed",
]

KEY: Final = "OS_SECRET_KEY"
KEY_ID: Final = "OS_SECRET_KEY_ID"
PREVIOUS_KEYS: Final = "OS_SECRET_PREVIOUS_KEYS"
LEDGER_ID: Final = "OS_SECRET_LEDGER_ID"
LEDGER_URL: Final = "OS_SECRET_LEDGER_URL"
LEDGER_SCHEMA: Final = "OS_SECRET_LEDGER_SCHEMA"
LEDGER_TARGET_URL: Final = "OS_SECRET_LEDGER_TARGET_URL"
MODE: Final = "OS_SECRET_MODE"
HOME: Final = "OS_SECRET_HOME"

_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
# A URL can hold a password. An id, a mode or a directory is no secret.
_PRIVATE: Final = frozenset((KEY, PREVIOUS_KEYS, LEDGER_URL, LEDGER_TARGET_URL))
_LEDGER_ID: Final = re.compile(
    r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
)


@final
class Environment:
    """Environment variables that don't show: the repr of `os.environ` holds every value."""

    __slots__ = ("_read",)
    _read: Callable[[str], str | None]

    def __init__(self, environ: Mapping[str, str] | Environment) -> None:
        if isinstance(environ, Environment):
            self._read = environ._read
            return

        # A closure, because the repr of a bound `environ.get` shows the mapping.
        def read(name: str) -> str | None:
            return environ.get(name)

        self._read = read

    def get(self, name: str) -> Secret | None:
        """The variable's value, or None if unset. Raises InvalidKey if it is blank or no UTF-8."""
        try:
            if self._read(name) is None:
                return None
            value = Secret(self._read(name) or "")
        except InvalidValue:
            value = None
        if value is None:
            raise InvalidKey(f"{name} is not UTF-8 text", hint=f"set {name} anew", setting=name)
        if not value.reveal().strip():
            raise _blank(name)
        return value

    @property
    def credentials(self) -> str | None:
        """The directory of credentials, which systemd sets. Returns None if it is not set."""
        return self._read(_CREDENTIALS) or None

    def __repr__(self) -> str:
        return "Environment(...)"


def setting(environ: Mapping[str, str] | Environment, name: str) -> str | None:
    """A setting's value, from the variable `name` or the file that `name_FILE` names.

    Returns None if neither is set. Outer ASCII white space is trimmed. Raises InvalidKey if both
    are set, or if the value is blank or no UTF-8. Raises InsecureKeyFile if the file can't be
    read. If the file may hold a secret (keys, or a URL with its password), it must also be closed
    to others, else InsecureKeyFile.
    """
    settings = Environment(environ)
    del environ  # its repr shows every value
    value = secret_setting(settings, name)
    return None if value is None else value.reveal_text()


def mode(environ: Mapping[str, str] | Environment) -> Literal["production", "development"]:
    """`development` if `OS_SECRET_MODE` says exactly that, else `production`. Raises as `setting`.

    Nothing else counts: not a test runner's variables, not another spelling.
    """
    settings = Environment(environ)
    del environ
    return "development" if setting(settings, MODE) == "development" else "production"


def parse_ledger_id(text: str) -> bytes:
    """The 16 bytes of a ledger id that is given as 32 hex digits, or as a UUID with dashes.

    Raises InvalidKey for other text, as for every setting that can't be read. WrongLedger is
    kept for a well-formed id of another ledger.
    """
    if _LEDGER_ID.fullmatch(text):
        return bytes.fromhex(text.replace("-", ""))
    del text  # a key in the wrong place would show in a traceback with locals
    raise InvalidKey(
        "a ledger id is 32 hex digits, or a UUID with dashes",
        hint=f"set {LEDGER_ID} to the id that `secret-ledger init` printed, without other words",
    )


def pinned_ledger_id(environ: Mapping[str, str] | Environment) -> bytes | None:
    """The id of the ledger that `OS_SECRET_LEDGER_ID` pins: 16 bytes.

    Returns None if it is not set. Raises as `setting` and `parse_ledger_id`.
    """
    settings = Environment(environ)
    del environ
    value = secret_setting(settings, LEDGER_ID)
    return None if value is None else parse_ledger_id(value.reveal_text())


def ledger_schema(given: str | None, environ: Mapping[str, str] | Environment) -> str | None:
    """The schema that a caller gives, else that of `OS_SECRET_LEDGER_SCHEMA`. SQLite ignores it.

    Raises as `setting`.
    """
    settings = Environment(environ)
    del environ
    return setting(settings, LEDGER_SCHEMA) if given is None else given


def home_directory(settings: Environment) -> Path:
    """The directory of the development key: `OS_SECRET_HOME`, else `~/.secret-ledger`.

    Raises NoStableKey if this user has no home directory, InvalidKey if the setting is relative.
    """
    value = secret_setting(settings, HOME)
    if value is not None:
        return absolute_directory(value.reveal_text(), HOME)
    home: Path | None = None
    # An empty HOME would mean the root of the file system.
    if os.environ.get("HOME") != "":
        with contextlib.suppress(RuntimeError):
            home = Path("~/.secret-ledger").expanduser()
    if home is None or not home.is_absolute():
        raise NoStableKey(
            "no key is set in development mode, and a new key can't be kept: this user has no home"
            " directory (HOME is not set, or is no absolute path)",
            hint=f"set {HOME}=/path/of/a/directory that stays, or set {KEY}",
        )
    return home


def absolute_directory(path: str, name: str) -> Path:
    """`path` with `~` expanded. If it is relative, raises InvalidKey, which names `name`."""
    with contextlib.suppress(RuntimeError):  # no home directory is known for this user
        directory = Path(path).expanduser()
        if directory.is_absolute():
            return directory
        del directory
    del path  # it may be a key in the wrong place
    # With a relative path, each working directory would have a key of its own.
    raise InvalidKey(f"{name} is no absolute path", hint=f"give {name} as /...")


def secret_setting(settings: Environment, name: str, *, empty_file: bool = False) -> Secret | None:
    """As `setting`, but as a Secret: for frames that a traceback with locals may show.

    empty_file: whether to return None also if the named file is blank.
    """
    file_name = f"{name}_FILE"
    value, path = settings.get(name), settings.get(file_name)
    if path is not None:
        if value is not None:
            raise InvalidKey(
                f"both {name} and {file_name} are set", hint="unset one of them", setting=name
            )
        value = read_file(
            KeyFile(path, f"the file that {file_name} names", f'"${file_name}"'),
            private=name in _PRIVATE,
            credentials=settings.credentials,
        )
        if empty_file and value is not None and not value.reveal().strip():
            return None
    return None if value is None else trimmed(value, name if path is None else file_name)


def trimmed(value: Secret, name: str) -> Secret:
    """`value` without outer ASCII white space.

    Raises InvalidKey, which names `name`, if it is blank or begins with a byte order mark.
    """
    inner = Secret(value.reveal().strip())
    if not inner.reveal():
        raise _blank(name)
    if inner.reveal().startswith(codecs.BOM_UTF8):
        raise InvalidKey(
            f"{name} begins with a byte order mark, an invisible character",
            hint="an editor has put it there: save the file as UTF-8 without BOM",
            setting=name,
        )
    return inner


def _blank(name: str) -> InvalidKey:
    return InvalidKey(
        f"{name} is set but blank",
        hint=f"a substitution may have failed; give it a value, or unset {name}",
        setting=name,
    )
