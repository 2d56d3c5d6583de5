"""What a PostgreSQL URL may say beside its address, and that nothing of it is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from daily_use import use
from inside import Connection, Dialling, read_url
from ledgers import OLD, opened, refused
from secret_ledger import LedgerUnavailable, SecretLedger

ADDRESS = "postgresql+asyncpg://u@db.example/app"
TLS = "sslmode=verify-full&sslrootcert=/etc/ca.pem"


def read(query: str) -> Dialling:
    return read_url(make_url(f"{ADDRESS}?{query}"), "the database")


async def asked(ledger: SecretLedger, query: str) -> object:
    def unit(connection: Connection) -> object:
        return connection.execute(text(query)).scalar_one()

    return await ledger.database.run(unit, "statement")


PREPARED = "SELECT count(*) FROM pg_prepared_statements"


async def test_without_a_pooler_statements_stay_prepared(postgres_url: str) -> None:
    async with opened(postgres_url, OLD) as ledger:
        await ledger.put("a", "1")
        found = await asked(ledger, PREPARED)
        assert isinstance(found, int)
        assert found > 0


@pytest.mark.parametrize("says", ["pooler=transaction", "statement_cache_size=0"])
async def test_a_url_can_say_what_a_pooler_does_not_show(postgres_url: str, says: str) -> None:
    async with opened(f"{postgres_url}?{says}", OLD) as ledger:
        await use(ledger, "a")
        assert await asked(ledger, PREPARED) == 0


async def test_names_and_options_of_libpq_reach_the_server(postgres_url: str) -> None:
    url = f"{postgres_url}?application_name=billing&options=-c%20work_mem%3D1MB&connect_timeout=9"
    async with opened(url, OLD) as ledger:
        assert await asked(ledger, "SHOW application_name") == "billing"
        assert await asked(ledger, "SHOW work_mem") == "1MB"


def test_parameters_of_libpq_go_to_asyncpg_in_a_url_and_numbers_as_numbers() -> None:
    found = read(f"{TLS}&connect_timeout=9&prepared_statement_cache_size=7&dbname=other")
    assert found.arguments == {
        "dsn": "postgresql://?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem",
        "timeout": 9.0,
        "prepared_statement_cache_size": 7,
        "database": "other",
    }
    assert found.files == {"sslrootcert": "/etc/ca.pem"}
    assert found.url.render_as_string() == ADDRESS


def test_further_hosts_stay_in_the_url() -> None:
    found = read("host=a:1&host=b:2")
    assert found.url.query == {"host": ("a:1", "b:2")}
    assert found.arguments == {}


def test_what_only_states_a_wish_is_no_obstacle() -> None:
    assert read("channel_binding=prefer&gssencmode=disable").arguments == {}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("channel_binding=require", "asyncpg can't do what this value of channel_binding asks for"),
        ("sslmode=", "sslmode is blank"),
        ("sslrootcert=%20&sslmode=require", "sslrootcert is blank"),
        ("timeout=soon", "timeout takes a number"),
        ("statement_cache_size=1.5", "statement_cache_size takes a number"),
        ("pooler=statement", "pooler is transaction or session"),
        ("sslrootcert=system&sslmode=require", "goes with sslmode=verify-full only"),
        ("sslrootcert=system&sslcert=/nowhere", "no certificate and its key"),
        ("hunter2=x", "one name is not known here"),
        ("hunter2=", "a parameter is blank"),
        ("sslpassword=hunter2", "one name is not known here"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_before_anything_is_sent(
    query: str, reason: str
) -> None:
    # Nothing listens there: who connects would be told so instead.
    error = await refused(
        f"postgresql+asyncpg://u:pw@127.0.0.1:1/x?{query}", LedgerUnavailable, OLD
    )
    assert reason in error.message
    assert "sslrootcert" in error.hint
    shown = f"{error} {error.hint} {error.details}"
    assert "hunter2" not in shown
    assert "pw" not in shown


async def test_a_mode_of_tls_that_does_not_exist_is_refused() -> None:
    error = await refused(f"{ADDRESS}?sslmode=always", LedgerUnavailable, OLD)
    assert "verify-full" in error.message


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslcrl"])
async def test_a_file_that_is_not_there_is_named_by_its_parameter(
    name: str, tmp_path: Path
) -> None:
    there = tmp_path / "ca.pem"
    there.write_text("")
    query = f"sslmode=require&{name}={tmp_path / 'missing.pem'}"
    error = await refused(f"{ADDRESS}?{query}", LedgerUnavailable, OLD)
    assert f"the file that {name} names can't be read" in error.message


async def test_a_login_that_is_refused_says_what_to_check(own_postgres_url: str) -> None:
    url = make_url(own_postgres_url).set(username="nobody_at_all", password="hunter2")
    error = await refused(url.render_as_string(hide_password=False), LedgerUnavailable, OLD)
    assert error.details["sqlstate"].startswith("28")
    assert "whether the server wants TLS" in error.hint
    assert "hunter2" not in f"{error} {error.hint} {error.details}"
