"""The command line's verbs in one place, and the help of its root."""

from __future__ import annotations

from typing import Final

from cyclopts import App

from secret_ledger.cli import keys, migrating, nodes, projections, secrets, setup, verifying

__all__ = ["make_app"]

_ORDER: Final = (
    "init", "keygen", "put", "get", "list", "history", "delete", "restore", "destroy",
    "verify", "keys", "migrate", "generations", "projections", "nodes", "health", "schema",
)  # fmt: skip

_ABOUT: Final = """\
An event-sourced store for an application's secrets.

Data goes to stdout, everything else to stderr: a table on a terminal, lines of
tab-separated fields in a pipe, one JSON document with --json.\
"""

_MORE: Final = """\
Begin with:
  export OS_SECRET_KEY=$(secret-ledger keygen)
  export OS_SECRET_LEDGER_URL=sqlite+aiosqlite:///app.db
  eval "$(secret-ledger init --shell)"
  printf %s "$PASSWORD" | secret-ledger put db/warehouse/password
  secret-ledger get db/warehouse/password
  secret-ledger list db/

Settings (each also as NAME_FILE, the file that holds it):
  OS_SECRET_LEDGER_URL     the database: sqlite+aiosqlite:///file.db,
                           postgresql+asyncpg://user@host/database
  OS_SECRET_LEDGER_SCHEMA  PostgreSQL's schema, default secret_ledger
  OS_SECRET_LEDGER_TARGET_URL
                           the database that `migrate` moves the ledger to
  OS_SECRET_KEY            the root key, as keygen prints it
  OS_SECRET_KEY_ID         its label
  OS_SECRET_PREVIOUS_KEYS  keys to read with only: [id=]key, ...
  OS_SECRET_LEDGER_ID      the one ledger to open; none is made
  OS_SECRET_MODE           production (default) or development
  $CREDENTIALS_DIRECTORY/os-secret-key: systemd's place for the key

Exit codes:
   0 ok                         20 secret not found
   1 internal                   21 deleted or destroyed
   2 usage                      22 version conflict
  10 no stable key              23 invalid name or value
  11 key fingerprint mismatch   30 migration or rekey unfinished
  12 tampered, undecryptable    31 a projection's code failed
  13 missing key                40 database unavailable
  14 stale key                  41 node not ready
  15 schema, or not a ledger    42 moved
  16 invalid key or key file   130 interrupted
  17 wrong ledger              141 output was closed
  18 key in use, unknown, reused or exhausted\
"""


def make_app() -> App:
    """Make the application, which parses words into a call of one verb."""
    app = App(
        name="secret-ledger",
        version=_version,
        version_flags=["--version"],
        help=_ABOUT,
        help_format="plaintext",
        help_epilogue=_MORE,
    )
    for family in (setup, keys, secrets, verifying, migrating, projections, nodes):
        family.add_to(app)
    for number, verb in enumerate(_ORDER):
        app[verb].sort_key = number
    return app


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("secret-ledger")
    except PackageNotFoundError:
        return "unknown (not installed)"
