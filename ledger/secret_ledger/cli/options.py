"""Options and arguments that several verbs share."""

from __future__ import annotations

import getpass
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from cyclopts import App, Group, Parameter

from secret_ledger.cli.usage import UsageError

__all__ = [
    "DEFAULTS",
    "Actor",
    "Common",
    "Expect",
    "Moved",
    "Name",
    "Yes",
    "actor_of",
    "examples",
    "moment",
    "register",
]

_EVERYWHERE: Final = Group("Options of every verb", sort_key=9)

Name = Annotated[str, Parameter(name="NAME", help="The secret, such as db/warehouse/password.")]
Expect = Annotated[
    int | None,
    Parameter(
        help="Write only if this is the latest version; 0: only if the secret has no version yet."
    ),
]
Yes = Annotated[
    bool, Parameter(negative=(), show_default=False, help="Don't ask again on the terminal.")
]
Moved = Annotated[
    bool,
    Parameter(
        name="--moved",
        negative=(),
        show_default=False,
        help="If the ledger moved to another database: read it here, as it was at the move.",
    ),
]
Actor = Annotated[
    str | None,
    Parameter(help="Who does it; kept in the log. Default: the user's name; '' for nobody."),
]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Common:
    """The options of every verb: where the ledger is, and how to answer."""

    url: Annotated[
        str | None,
        Parameter(
            group=_EVERYWHERE,
            help="The database. Default: OS_SECRET_LEDGER_URL, the place for a URL with a"
            " password.",
        ),
    ] = None
    schema: Annotated[
        str | None,
        Parameter(
            group=_EVERYWHERE,
            help="PostgreSQL's schema. Default: OS_SECRET_LEDGER_SCHEMA, else secret_ledger.",
        ),
    ] = None
    json: Annotated[
        bool,
        Parameter(
            group=_EVERYWHERE,
            negative=(),
            show_default=False,
            help="One JSON document on stdout; errors and notes as JSON lines on stderr.",
        ),
    ] = False
    debug: Annotated[
        bool,
        Parameter(
            group=_EVERYWHERE,
            negative=(),
            show_default=False,
            help="Show where an error comes from (never values).",
        ),
    ] = False


DEFAULTS: Final = Common()


def examples(*lines: str) -> str:
    """Make the text below a verb's help."""
    shown = ["Examples:", *(f"  {line}" for line in lines), ""] if lines else []
    return "\n".join([*shown, "Exit codes and settings: secret-ledger --help"])


def register(
    app: App, verb: Callable[..., Coroutine[Any, Any, None]], *example: str, name: str | None = None
) -> None:
    """Add a verb to `app`. The verb's docstring, reflowed, is its help."""
    text = inspect.cleandoc(verb.__doc__ or "")
    app.command(
        verb,
        name=name or verb.__name__,
        help="\n\n".join(" ".join(part.split()) for part in text.split("\n\n")),
        help_epilogue=examples(*example),
        version_flags=[],  # get and restore have a --version of their own
    )


def moment(text: str) -> datetime:
    """Parse a time in ISO 8601. Raises UsageError if it can't be parsed, or has no time zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None:
        raise UsageError("--at takes a time as ISO 8601", hint="such as 2026-01-31T12:00:00Z")
    if found.utcoffset() is None:
        raise UsageError(
            "--at has no time zone", hint=f"say which, such as {found.isoformat()}Z for UTC"
        )
    return found


def actor_of(given: str | None) -> str | None:
    """Return `--actor`, else the name of the process's user: a claim that nothing proves.

    Returns None if `given` is empty, or if the user has no name.
    """
    if given is not None:
        return given or None
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user id without a name
        return None
