"""Roles as a DBA sets them up: an owner of the schema, a service's role, a reader's."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.engine import make_url

from inside import grants
from postgresql_server import execute


@dataclass(frozen=True)
class Roles:
    """The database's URL as each of them has it, `admin` being a superuser."""

    admin: str
    owner: str
    runtime: str
    reader: str

    def grant(self) -> None:
        """As documented: the owner runs what `schema grants` prints."""
        execute(self.owner, grants(name_of(self.runtime)))
        execute(self.owner, grants(name_of(self.reader), read_only=True))


def name_of(url: str) -> str:
    """The role that a URL logs in as."""
    return make_url(url).username or ""


@contextmanager
def roles_of(admin: str) -> Iterator[Roles]:
    """Three roles in one database, and the schema that the first of them owns; no ledger yet."""
    mark = uuid.uuid4().hex[:8]
    urls = {
        kind: make_url(admin).set(username=f"{kind}_{mark}").render_as_string(hide_password=False)
        for kind in ("owner", "runtime", "reader")
    }
    roles = Roles(admin, **urls)
    names = [name_of(url) for url in urls.values()]
    for name in names:
        execute(admin, f"CREATE ROLE {name} LOGIN")
    execute(admin, f"CREATE SCHEMA secret_ledger AUTHORIZATION {names[0]}")
    try:
        yield roles
    finally:
        execute(admin, f"DROP OWNED BY {', '.join(names)} CASCADE")
        execute(admin, f"DROP ROLE {', '.join(names)}")
