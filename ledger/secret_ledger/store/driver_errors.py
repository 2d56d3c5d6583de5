"""Translates a driver's exception to ours, and leaves out all that may hold a row's values.

SQLAlchemy puts parameters into its messages, asyncpg DETAIL lines, SQLite contents of the file.
Only the SQLSTATE (or SQLite's error name), the constraint and a sentence of ours survive.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import NoReturn

from sqlalchemy import exc

from secret_ledger.errors import (
    LedgerError,
    LedgerUnavailable,
    NotALedger,
    ProjectionFailed,
    TamperedEvent,
)
from secret_ledger.model.refusals import printable

__all__ = [
    "DRIVER_ERRORS",
    "closed",
    "drivers_own",
    "fail_in_projection",
    "has_no_connection",
    "hinders_writes",
    "is_refusal",
    "is_transient",
    "not_committed",
    "others_stored",
    "takes_no_writes",
    "translate",
]

DRIVER_ERRORS = (exc.SQLAlchemyError, sqlite3.Error, OSError, asyncio.TimeoutError)
"""Errors of SQLAlchemy, sqlite3 and the system. asyncpg raises errors of its own too."""

_TRANSIENT_STATES = (
    "08", "40", "53300", "57P01", "57P02", "57P03", "57014", "55P03", "25006",
    "0A000",  # a cached plan met a table that was altered
)  # fmt: skip
_TRANSIENT_NAMES = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
_HINDERING = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "53100", "58030", "25006")
_READ_ONLY = "25006"
"""The server, or the transaction, takes no writes."""
_CONFUSED = "InternalClientError"
"""asyncpg's error if the server has just closed the connection."""
_WRONG_HOST = ("NoMatchingHost", "TargetServerAttributeNotMatched")
_TIMEOUTS = {
    "57014": ("the server cancelled the statement", "statement_timeout"),
    "25P03": ("the server ended the session", "idle_in_transaction_session_timeout"),
    "25P04": ("the server ended the session", "transaction_timeout"),
    "57P05": ("the server ended the session", "idle_session_timeout"),
}
_ENDED = "08003"
_IN = "met in "
"""Begins the note on a driver's error that names the projection."""
_NO_CONNECTION = "53300"
_UNDONE = "25P02"
"""A statement followed a failed statement of its transaction."""
_UNPREPARED_STATES = ("26000", "42P05")
_UNDONE_NAMES = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CONSTRAINT", "SQLITE_FULL")
"""Errors of SQLite's COMMIT that come before the commit's mark is whole in the -wal."""
_REFUSED_STATES = ("22", "23", "42", "P0", "54")
_REFUSED_NAMES = ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG", "SQLITE_RANGE")


def translate(
    error: BaseException, place: str, *, lost: bool = False, at_commit: bool = False
) -> LedgerError:
    """Returns the LedgerError for a driver's `error` at the database `place`.

    `lost`: the connection is gone too. `at_commit`: COMMIT itself raised the error.
    """
    if isinstance(error, LedgerError):
        return error
    origin = drivers_own(error)
    state = getattr(origin, "sqlstate", None)
    if state == _ENDED:  # asyncpg's own; its cause has the server's reason
        state = getattr(origin.__cause__, "sqlstate", None) or state
    constraint = getattr(origin, "constraint_name", None)
    name = getattr(origin, "sqlite_errorname", None)
    details: dict[str, object] = {}
    if state:
        details["sqlstate"] = state
    if constraint:
        details["constraint"] = constraint
    if name:
        details["sqlite_error"] = name
    if at_commit and name and not name.startswith(_UNDONE_NAMES):
        # The commit's mark may be in the -wal: then SQLite finds it there after a crash.
        details["outcome_unknown"] = True
    kind = str(name or state or type(origin).__name__)
    if kind in _WRONG_HOST:
        kind = _WRONG_HOST[0]

    if state == _UNDONE:
        return not_committed()
    if name == "SQLITE_NOTADB":
        return NotALedger(
            f"{place} is not a SQLite database",
            hint="check OS_SECRET_LEDGER_URL; nothing was changed",
            **details,
        )
    if (name and name.startswith("SQLITE_CORRUPT")) or state in ("XX001", "XX002"):
        return TamperedEvent(
            f"{place}: the database itself is damaged ({kind}); this is not a wrong key",
            hint="stop all writers, keep a copy of the files, and restore from a backup",
            **details,
        )
    lost = (
        lost
        or kind in (_CONFUSED, "InterfaceError")
        or isinstance(origin, OSError | exc.TimeoutError | asyncio.TimeoutError)
    )
    transient = (
        lost
        or any(state.startswith(s) for s in _TRANSIENT_STATES if state)
        or any(name.startswith(n) for n in _TRANSIENT_NAMES if name)
        or (state is None and name is None and not isinstance(error, exc.ArgumentError))
    )
    notes = getattr(error, "__notes__", ())
    within = next((n.removeprefix(_IN) for n in notes if n.startswith(_IN)), None)
    at = place if transient or within is None else f"{place}: {within}"
    return LedgerUnavailable(
        f"{at}: {_sentence(kind, lost)}",
        hint=_hint(kind, lost),
        transient=transient,
        refused=any(kind.startswith(s) for s in (*_REFUSED_STATES, *_REFUSED_NAMES)),
        **details,
    )


def fail_in_projection(error: Exception, projection: str, where: str = "") -> NoReturn:
    """Raise the error that a caller sees if `error` was raised while `projection` was kept.

    An error of `secret_ledger.errors` is raised as it is. A driver's error is raised with a note,
    so that its translation names the projection and `where`, unless it is transient. For any other
    error, raises ProjectionFailed; also for the projection's own subclass of LedgerError.
    """
    if type(error).__module__ == LedgerError.__module__:
        raise error
    what = printable(f"projection {projection}{where}")
    if isinstance(error, DRIVER_ERRORS) or type(error).__module__.startswith("asyncpg."):
        error.add_note(f"{_IN}{what}")
        raise error
    raise ProjectionFailed(f"{what}: {printable(error)[:200]}", projection=projection) from error


def drivers_own(error: BaseException) -> BaseException:
    """The driver's error inside the error that SQLAlchemy raises while it connects."""
    while type(error).__module__.startswith("sqlalchemy."):
        below = getattr(error, "orig", None) or error.__cause__
        if below is None:
            break
        error = below
    return error


def has_no_connection(error: BaseException) -> bool:
    """Whether the server, or a pooler before it, has no free connection now."""
    return getattr(drivers_own(error), "sqlstate", None) == _NO_CONNECTION


def closed(place: str) -> LedgerUnavailable:
    """The error of a call on a database that was closed here."""
    return LedgerUnavailable(f"{place}: the ledger is closed", hint="open it again")


def others_stored() -> LedgerUnavailable:
    """The error of an append if a trigger or a rule of the database dropped or added rows."""
    return LedgerUnavailable("the database stored another number of events than it was given")


def not_committed() -> LedgerUnavailable:
    """The error of a unit if the database undid its transaction before the commit."""
    return LedgerUnavailable(
        "the database undid the transaction and committed nothing",
        hint="an earlier statement failed, and some code caught its error, for example a"
        " projection's `apply`: let the database's errors through there",
        refused=True,
    )


def _sentence(kind: str, lost: bool) -> str:
    if kind.startswith(("SQLITE_FULL", "53100")):
        return f"the disk is full ({kind})"
    if kind.startswith("SQLITE_READONLY") or kind == _READ_ONLY:
        return f"the database is read-only ({kind})"
    if kind.startswith("SQLITE_INTERRUPT"):
        return f"the statement was ended, because nobody waits for it any more ({kind})"
    if kind.startswith("SQLITE_IOERR"):
        return f"reading or writing the files failed ({kind})"
    if kind.startswith("SQLITE_CANTOPEN"):
        return f"the database file can't be opened ({kind})"
    if kind in _TIMEOUTS:
        return f"{_TIMEOUTS[kind][0]} ({kind})"
    if kind == _NO_CONNECTION:
        return f"the server has no free connection ({kind})"
    if kind == _ENDED:
        return f"the connection was ended during a call ({kind})"
    if kind in _UNPREPARED_STATES:
        return f"a prepared statement of this connection belongs to another connection ({kind})"
    if kind.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "55P03")):
        return f"another transaction holds the database's lock ({kind})"
    if kind in _WRONG_HOST:
        return "no host that answers is of the wanted kind"
    if lost:
        return f"the database can't be reached ({kind})"
    if kind.startswith("28") or kind == "3D000":
        return f"the server refuses the login or has no such database ({kind})"
    return f"the database refused the statement ({kind})"


def _hint(kind: str, lost: bool) -> str:
    if kind.startswith(("SQLITE_FULL", "53100")):
        return "free space; nothing half-written is left"
    if kind.startswith("SQLITE_IOERR"):
        return "check the disk, its quota and the system's log; then try again"
    if kind.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return (
            "the lock belongs to another process, or to another engine of this process on the same"
            " file: end that transaction; a write to the ledger waits for it"
        )
    if kind.startswith("55P03"):
        return "end the transaction that holds it: pg_stat_activity shows who waits for whom"
    if kind.startswith("SQLITE_CANTOPEN"):
        return "check that the folder exists and can be written"
    if kind.startswith("42501"):
        return (
            "this role lacks a right on the ledger's schema or tables; `secret-ledger schema grants"
            " --role ROLE` prints the SQL that the owner runs; only the owner can run `schema"
            " upgrade` and commands that make or drop tables"
        )
    if kind == _NO_CONNECTION:
        return (
            "see max_connections of the server, and CONNECTION LIMIT of the role and the database;"
            " a process opens at most 15 connections; a pooler (PgBouncer) shares connections among"
            " processes"
        )
    if kind in _TIMEOUTS:
        return f"see {_TIMEOUTS[kind][1]} of this role and the server"
    if kind == _ENDED:
        return (
            "the server or a pooler was restarted, or a timeout of this role ended the session"
            " (idle_in_transaction_session_timeout, transaction_timeout)"
        )
    if kind in _UNPREPARED_STATES:
        return (
            "a pooler stands in between: add pooler=transaction to the URL's parameters, or give"
            ' your own engine connect_args={"statement_cache_size": 0,'
            ' "prepared_statement_name_func": lambda: ""}'
        )
    if kind in _WRONG_HOST:
        return (
            "a ledger is written on a server that takes writes: if a standby is being promoted, try"
            " again in a moment; read_only=True reads from a standby (or see target_session_attrs"
            " in the URL)"
        )
    if kind == _READ_ONLY:
        return (
            "if the server is a standby, name the primary in the URL; to read from a standby,"
            " open it with read_only=True"
        )
    if kind.startswith("40"):
        return (
            "try again; if the server is a standby that cancels queries for its replay, set"
            " hot_standby_feedback=on there"
        )
    if kind.startswith("28"):
        return "check user, password and database, and whether the server wants TLS (sslmode)"
    if lost:
        return "check that the server runs and that the URL is right; then try again"
    return ""


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed in a moment."""
    return isinstance(error, LedgerUnavailable) and bool(error.details.get("transient"))


def takes_no_writes(error: BaseException) -> bool:
    """Whether a driver's error says that the server of this connection takes no writes."""
    return getattr(error, "sqlstate", None) == _READ_ONLY


def hinders_writes(error: LedgerError) -> bool:
    """Whether every other write would fail too: a full or failing disk, or a read-only database."""
    kind = str(error.details.get("sqlite_error") or error.details.get("sqlstate") or "")
    return kind.startswith(_HINDERING)


def is_refusal(error: BaseException) -> bool:
    """Whether the database refused the content of the batch, and not its timing."""
    return isinstance(error, LedgerUnavailable) and bool(error.details.get("refused"))
