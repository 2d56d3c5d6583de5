"""TLS before a real server, as libpq's parameters in the URL demand it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from certificates import Authority, authority
from ledgers import OLD, opened, refused
from postgresql_server import PASSWORD
from secret_ledger import LedgerUnavailable
from tls_front import TlsFront


@dataclass(frozen=True)
class Tls:
    """A server at 127.0.0.1 with a certificate, and the authorities around it."""

    front: TlsFront
    ours: Authority
    strangers: Authority
    folder: Path

    def trusting(self, mode: str, by: Authority | None = None, host: str = "127.0.0.1") -> str:
        file = quote(str((by or self.ours).file))
        return self.front.url(f"sslmode={mode}&sslrootcert={file}", host)


@pytest.fixture
async def tls(tmp_path: Path, own_postgres_url: str) -> AsyncIterator[Tls]:
    ours, strangers = authority(tmp_path, "ours"), authority(tmp_path, "strangers")
    async with TlsFront(own_postgres_url, *ours.sign(tmp_path, "server", "127.0.0.1")) as front:
        yield Tls(front, ours, strangers, tmp_path)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_ledger_lives_behind_tls_that_the_url_demands(tls: Tls, mode: str) -> None:
    async with opened(tls.trusting(mode), OLD) as ledger:
        await ledger.put("a", mode)
        assert (await ledger.get("a")).value.reveal_text() == mode
    assert set(tls.front.spoken) == {"TLSv1.3"}


@pytest.mark.parametrize(
    ("query", "version"),
    [
        ("sslmode=require", "TLSv1.3"),
        ("sslmode=require&ssl_max_protocol_version=TLSv1.2", "TLSv1.2"),
        ("ssl=require", "TLSv1.3"),
        ("", "TLSv1.3"),  # preferred, where nothing is said
        ("sslmode=disable", None),
    ],
)
async def test_what_the_url_says_of_tls_is_what_happens(
    tls: Tls, query: str, version: str | None
) -> None:
    async with opened(tls.front.url(query), OLD) as ledger:
        await ledger.put("a", "1")
    assert set(tls.front.spoken) == {version}


async def test_asyncpg_s_own_spelling_takes_the_authority_too(tls: Tls) -> None:
    file = quote(str(tls.ours.file))
    async with opened(tls.front.url(f"ssl=verify-full&sslrootcert={file}"), OLD) as ledger:
        await ledger.put("a", "1")
    strangers = quote(str(tls.strangers.file))
    await refused(tls.front.url(f"ssl=verify-full&sslrootcert={strangers}"), LedgerUnavailable, OLD)


async def test_a_client_proves_itself_with_a_certificate(tls: Tls) -> None:
    tls.front.context.verify_mode = ssl.CERT_REQUIRED
    tls.front.context.load_verify_locations(tls.ours.file)
    certificate, key = tls.ours.sign(tls.folder, "client")
    url = f"{tls.trusting('verify-full')}&sslcert={certificate}&sslkey={key}"
    async with opened(url, OLD) as ledger:
        await ledger.put("a", "1")
    error = await refused(tls.trusting("verify-full"), LedgerUnavailable, OLD)
    assert_shows_no_password(error)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_server_of_another_authority_is_refused(tls: Tls, mode: str) -> None:
    error = await refused(tls.trusting(mode, tls.strangers), LedgerUnavailable, OLD)
    assert "the server's certificate is not accepted" in error.message
    assert "sslrootcert" in error.hint
    assert_shows_no_password(error)


async def test_the_machine_s_own_authorities_do_not_know_ours(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = await refused(tls.front.url("sslrootcert=system"), LedgerUnavailable, OLD)
    assert "the server's certificate is not accepted" in error.message
    monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(tls.ours.file))
    async with opened(tls.front.url("sslrootcert=system&sslmode=verify-full"), OLD) as ledger:
        await ledger.put("a", "1")


async def test_only_verify_full_compares_the_name(tls: Tls) -> None:
    error = await refused(tls.trusting("verify-full", host="localhost"), LedgerUnavailable, OLD)
    assert "localhost" in error.message
    assert "must name the URL's host" in error.hint
    async with opened(tls.trusting("verify-ca", host="localhost"), OLD) as ledger:
        await ledger.put("a", "1")


async def test_a_file_that_holds_no_certificate_is_refused_as_such(tls: Tls) -> None:
    junk = tls.folder / "junk.pem"
    junk.write_text("hunter2")
    url = tls.front.url(f"sslmode=verify-full&sslrootcert={junk}")
    error = await refused(url, LedgerUnavailable, OLD)
    assert "TLS can't be set up" in error.message
    assert "hunter2" not in error.message


@pytest.mark.parametrize("mode", ["require", "verify-full"])
async def test_a_server_without_tls_is_refused_where_tls_is_demanded(
    tls: Tls, own_postgres_url: str, mode: str
) -> None:
    url = f"{own_postgres_url}?sslmode={mode}&sslrootcert={tls.ours.file}"
    error = await refused(url, LedgerUnavailable, OLD)
    assert "the URL demands TLS, and the server offers none" in error.message
    assert "turn ssl on" in error.hint
    assert not error.details.get("transient")
    assert_shows_no_password(error)
    async with opened(own_postgres_url, OLD) as ledger:  # it was never spoken to
        assert ledger.created


def assert_shows_no_password(error: LedgerUnavailable) -> None:
    assert PASSWORD not in f"{error} {error.hint} {error.details}"
    assert error.__cause__ is error.__context__ is None
