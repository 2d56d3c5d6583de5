"""What a command that can't be understood is told, what the help says, and the shape of JSON."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from cli_session import KEY, Cli
from inside import _ENDING, _OTHER_WORDS, errors, make_app

VERBS = (
    "init", "keygen", "put", "get", "list", "history", "delete", "restore", "destroy", "verify",
    "keys status", "keys history", "keys census", "keys rotate", "keys rekey", "keys retire",
    "keys lost", "migrate", "generations list", "generations purge", "projections check",
    "projections rebuild", "nodes", "health", "schema upgrade", "schema grants",
)  # fmt: skip

MEANT = "did you mean: secret-ledger"
_FOR_GOOD = ["a", "--reason", "x", "--yes"]
ARGUMENTS = {
    "get": ["a"], "put": ["a"], "history": ["a"], "delete": ["a"], "restore": ["a"],
    "destroy": _FOR_GOOD, "keys retire": ["a"], "keys lost": _FOR_GOOD,
    "generations purge": ["0", "--yes"],
}  # fmt: skip


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> Cli:
    monkeypatch.setenv("COLUMNS", "80")
    return Cli(monkeypatch, sqlite_url)


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("rm a", "there is no verb rm", f"{MEANT} delete (a deleted secret can be restored)"),
        ("remove a", "there is no verb remove", f"{MEANT} delete"),
        ("undelete a", "there is no verb undelete", f"{MEANT} restore"),
        ("ls", "there is no verb ls", f"{MEANT} list"),
        ("set a", "there is no verb set", f"{MEANT} put"),
        ("keys list", "there is no verb list", f"{MEANT} keys status"),
        ("rotate", "there is no verb rotate", f"{MEANT} keys rotate"),
        ("destory a", "there is no verb destory", "secret-ledger --help"),
        ("keys retrie", "there is no verb retrie", "secret-ledger keys --help"),
        ("keys losst", "there is no verb losst", "secret-ledger keys --help"),
        ("generations prune", "there is no verb prune", "secret-ledger generations --help"),
        ("", "no verb is given", "secret-ledger --help"),
        ("keys", "no verb is given", "secret-ledger keys --help"),
        ("lsit", "there is no verb lsit", "did you mean: secret-ledger list"),
        ("keys statsu", "there is no verb statsu", "did you mean: secret-ledger keys status"),
        ("get", "secret-ledger get: NAME is missing", "secret-ledger get --help"),
        ("get a b", "secret-ledger get: one argument too many", "secret-ledger get --help"),
        ("list --jsno", "secret-ledger list has no option --jsno", "did you mean --json?"),
        ("get a --version", "secret-ledger get: --version needs a value", None),
        ("get a --version x", "secret-ledger get: --version takes a whole number", None),
        ("get a --debug --debug", "secret-ledger get: --debug is given twice", None),
        (
            "verify --level most",
            "secret-ledger verify: --level takes one of latest, full, control",
            None,
        ),
        ("destroy a --yes", "secret-ledger destroy: --reason is missing", None),
        ("destroy a --reason", "secret-ledger destroy: --reason needs a value", None),
        ("get a --at 2026-01-31", "--at has no time zone", None),
        ("get a --at noon", "--at takes a time as ISO 8601", "such as 2026-01-31T12:00:00Z"),
        ("get a --at 2026-01-31T00:00Z --version 1", "--version and --at exclude each other", None),
        ("put a --metadata [1]", "--metadata takes a JSON object", None),
        ("put a --file /no/such", "the file of --file can't be read: No such file or", None),
        ("put a --actr x", "put has no such option", "did you mean --actor?"),
    ],
)
def test_a_usage_error_is_exit_2_with_a_way_out(
    cli: Cli, words: str, error: str, hint: str | None
) -> None:
    done = cli(*words.split())
    assert (done.code, done.raw) == (2, b"")
    first, *rest = done.err.splitlines()
    assert first.startswith(f"error: {error}")
    assert len(rest) == 1
    assert rest[0].startswith(f"hint: {hint}" if hint else "hint: ")
    as_json = cli(*words.split(), "--json")
    assert (as_json.error["error"], as_json.error["exit_code"]) == ("usage", 2)


def test_no_word_that_is_no_verb_leads_to_a_verb_that_ends_something() -> None:
    app = make_app()
    families = {"": app, **{name: app[name] for name in _OTHER_WORDS if name}}
    for family, words in _OTHER_WORDS.items():
        for word, meant in words.items():
            assert word not in set(families[family]), word
            assert meant in VERBS, word
            assert meant.split()[-1] not in _ENDING - {"delete"}, word
    assert {verb for verb in VERBS if verb.split()[-1] in _ENDING} == {
        "delete", "destroy", "keys retire", "keys lost", "generations purge",
    }  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ["put", "a", "hunter2"], ["put", "a", "hunter2", "--json"], ["put", "a", "-hunter2"],
        ["put", "a", "--value=hunter2"], ["put", "a", "--value", "hunter2"],
        ["put", "a", "--hunter2"], ["put", "a", "--", "hunter2"], ["put", "a", "b", "--debug"],
        ["put", "hunter2", "a", "b"],
    ],
)  # fmt: skip
def test_a_value_as_an_argument_is_refused_and_not_repeated(cli: Cli, words: list[str]) -> None:
    done = cli(*words, value=b"stdin")
    assert done.code == 2
    assert "put takes no value as an argument" in done.err
    assert "printf %s" in done.err
    assert "hunter2" not in done.err


def test_without_a_url_the_hint_says_how_to_set_one(cli: Cli) -> None:
    cli.set("OS_SECRET_LEDGER_URL", None)
    for verb in VERBS:
        if verb not in {"keygen", "schema grants"}:  # they need none
            done = cli(*verb.split(), *ARGUMENTS.get(verb, []))
            assert done.code == 2, verb
            assert done.err.startswith("error: no database is named\n")
            assert "OS_SECRET_LEDGER_URL" in done.err
    assert cli("list", "--url", "").code == 2


def test_the_url_comes_from_an_option_a_setting_or_its_file(cli: Cli, tmp_path: Any) -> None:
    file = tmp_path / "url"
    file.write_text(cli.url)
    file.chmod(0o600)
    cli.set("OS_SECRET_LEDGER_URL", None)
    assert cli("init", "--url", cli.url).code == 0
    cli.set("OS_SECRET_LEDGER_URL_FILE", str(file))
    assert cli("list").code == 0
    cli.set("OS_SECRET_LEDGER_URL", cli.url)
    assert cli("list").code == 16


def test_options_of_every_verb_may_stand_before_it_too(cli: Cli) -> None:
    cli.set("OS_SECRET_LEDGER_URL", None)
    assert cli("--url", cli.url, "--json", "init").json["created"] is True
    assert cli(f"--url={cli.url}", "put", "--", "-a", value=b"1").code == 0
    assert cli("--json", "get", "--url", cli.url, "--", "-a").json["value"] == "1"


def test_the_help_of_every_verb_has_its_options_and_fits_80_columns(cli: Cli) -> None:
    for verb in VERBS:
        done = cli(*verb.split(), "--help")
        assert (done.code, done.err) == (0, ""), verb
        for option in ("--url", "--schema", "--json", "--debug"):
            assert option in done.out, verb
        assert "secret-ledger --help" in done.out
        assert max(map(len, done.out.splitlines())) <= 80, verb


def test_the_root_help_lists_every_verb_setting_and_exit_code(cli: Cli) -> None:
    for words in (["--help"], ["-h"]):
        text = cli(*words).out
        for verb in VERBS:
            assert re.search(rf"^\W*{verb.split()[0]} ", text, re.MULTILINE), verb
        codes = {getattr(errors, name).exit_code for name in errors.__all__}
        listed = {int(code) for code in re.findall(r"(?:^|\s)(\d{1,3}) [a-z]", text)}
        assert codes | {0, 1, 2, 130, 141} == listed
        names = "KEY KEY_ID PREVIOUS_KEYS LEDGER_ID LEDGER_URL LEDGER_SCHEMA LEDGER_TARGET_URL MODE"
        for name in names.split():
            assert re.search(rf"OS_SECRET_{name}\s", text)
        assert max(map(len, text.splitlines())) <= 80


def test_version_is_one_line(cli: Cli) -> None:
    done = cli("--version")
    assert (done.code, done.err, len(done.out.splitlines())) == (0, "", 1)


def test_keygen_prints_a_key_and_nothing_else(cli: Cli) -> None:
    cli.set("OS_SECRET_LEDGER_URL", None)
    cli.hold(None)
    first, second = cli("keygen"), cli("keygen", "--id", "k-1")
    assert re.fullmatch(r"slk1_[A-Za-z0-9_-]+\n", first.out)
    assert first.out != second.out
    assert (first.err, second.err) == ("", "")
    assert cli("keygen", "--id", "k-1", "--json").json["key_id"] == "k-1"
    assert cli("keygen", "--id", "NO").code == 16


def test_keygen_writes_a_file_that_boot_accepts_and_never_overwrites_one(
    cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    assert cli("keygen", "--file", str(file)).raw == b""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = file.read_text()
    assert re.fullmatch(r"slk1_[A-Za-z0-9_-]+\n", kept)
    for path in (file, tmp_path, tmp_path / "none" / "key", Path(str(file) + "\0")):
        refused = cli("keygen", "--file", str(path))
        assert (refused.code, refused.raw) == (16, b""), path
        assert refused.remarks("error: the key file can't be made: ")
    assert file.read_text() == kept
    other = tmp_path / "other"
    made = cli("keygen", "--id", "k-1", "--file", str(other), "--json")
    assert made.json == {"file": str(other), "key_id": "k-1"}
    assert other.read_text().strip() not in made.out
    cli.hold(None)
    cli.set("OS_SECRET_KEY_FILE", str(file))
    assert cli("init").code == 0


def test_init_gives_the_line_that_pins_the_ledger(cli: Cli) -> None:
    done = cli("init")
    found = re.fullmatch(r"OS_SECRET_LEDGER_ID=([0-9a-f]{32})\n", done.out)
    assert found  # as systemd and Docker take it, which don't know `export`
    assert cli("init", "--shell").out == f"export {done.out}"
    assert cli("init", "--shell", "--json").json["setting"] == done.out.strip()
    cli.set("OS_SECRET_LEDGER_ID", found[1])
    assert cli("put", "a", value=b"1").code == 0
    again = cli("init", "--json").json
    assert (again["ledger_id"], again["created"]) == (found[1], False)


def test_every_verb_answers_in_one_json_document(cli: Cli) -> None:
    cli("init")
    cli("put", "a", value=b"1")
    cli("put", "b", value=b"1")
    for words, field in (
        (["init"], "ledger_id"), (["keygen"], "key"), (["put", "a"], "version"),
        (["get", "a"], "value"), (["list"], "secrets"), (["list", "none"], "secrets"),
        (["history", "a"], "versions"), (["delete", "a"], "version"), (["restore", "a"], "version"),
        (["destroy", "a", "--reason", "x", "--yes"], "reason"), (["verify"], "ok"),
        (["verify", "--level", "full"], "findings"), (["keys", "status"], "keys"),
        (["projections", "check"], "differences"), (["projections", "rebuild"], "rebuilt"),
        (["nodes"], "nodes"), (["health"], "ready"), (["schema", "upgrade"], "applied"),
        (["schema", "grants", "--role", "app"], "sql"),
    ):  # fmt: skip
        done = cli(*words, "--json")
        assert done.code == 0, words
        assert field in done.json, words
        for line in done.err.splitlines():
            assert isinstance(json.loads(line), dict), words


def test_a_long_list_streams_as_one_json_document(cli: Cli) -> None:
    import asyncio

    from secret_ledger import Keyring, SecretLedger

    async def fill() -> None:
        async with SecretLedger.open(cli.url, Keyring.of(KEY)) as ledger:
            await ledger.put_many({f"n/{i:04}": str(i) for i in range(1200)})

    asyncio.run(fill())
    found = cli("list", "--json").json["secrets"]
    assert [secret["name"] for secret in found] == [f"n/{i:04}" for i in range(1200)]
    assert len(cli("list", "n/00").rows) == 100
