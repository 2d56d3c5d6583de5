"""The command as a process: on a terminal, in a pipe, interrupted, without its extra."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli_process import LEDGER, environment, on_terminal, run, terminal

CANARY = "canary-value-90c1"


@pytest.fixture
def environ(sqlite_url: str) -> dict[str, str]:
    return environment(sqlite_url)


def test_a_first_session_in_a_shell(environ: dict[str, str]) -> None:
    made = run(environ, "init")
    assert made.returncode == 0
    environ["OS_SECRET_LEDGER_ID"] = made.stdout.decode().strip().partition("=")[2]
    assert run(environ, "put", "a", value=b"\xff\n").returncode == 0
    assert run(environ, "get", "a").stdout == b"\xff\n"
    assert run(environ, "get", "nope").returncode == 20
    assert run(environ, "verify", "--level", "full").returncode == 0
    environ["OS_SECRET_KEY"] = "ff" * 31 + "00"
    assert run(environ, "get", "a").returncode == 11


def test_a_value_typed_at_a_terminal_is_not_shown_and_has_no_line_break(
    environ: dict[str, str],
) -> None:
    run(environ, "init")
    with terminal(environ, "put", "a") as person:
        person.wait_for("Value of a (not shown): ")
        time.sleep(0.2)
        person.type(f"{CANARY}\n")
        assert person.end() == 0
        assert CANARY not in person.shown
        assert "wrote a: version 1" in person.shown
    assert run(environ, "get", "a").stdout == CANARY.encode()
    code, shown = on_terminal(environ, "get", "a")
    assert code == 0
    assert f"{CANARY}\n" in shown


def test_a_command_that_fails_before_the_pipe_overwrites_nothing(environ: dict[str, str]) -> None:
    run(environ, "put", "a", value=b"one")
    shell = f"false | {sys.executable} -m secret_ledger put a"
    assert subprocess.run(["bash", "-c", shell], env=environ, check=False).returncode == 2
    shell = f"{sys.executable} -m secret_ledger put a 0> /dev/null"
    done = subprocess.run(["bash", "-c", shell], env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2, b"error: stdin can't be read: Bad file descriptor",
    )  # fmt: skip
    assert run(environ, "get", "a").stdout == b"one"


def test_a_pipe_that_does_not_block_is_read_to_its_end(environ: dict[str, str]) -> None:
    run(environ, "init")
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with subprocess.Popen([*LEDGER, "put", "a"], env=environ, stdin=reading) as process:
        os.write(writing, b"first, ")
        end = time.monotonic() + 60
        while select.select([reading], [], [], 0)[0] and time.monotonic() < end:
            time.sleep(0.01)  # until it has taken the first part
        os.write(writing, b"then the rest")
        os.close(writing)
        assert process.wait(timeout=60) == 0
    os.close(reading)
    assert run(environ, "get", "a").stdout == b"first, then the rest"


def test_nothing_typed_is_nothing_written(environ: dict[str, str]) -> None:
    run(environ, "init")
    with terminal(environ, "put", "a") as person:
        person.wait_for("(not shown): ")
        time.sleep(0.2)
        person.type("\n")
        assert person.end() == 2
        assert "error: the value of a is empty; nothing was written" in person.shown
    assert run(environ, "get", "a").returncode == 20


def test_control_c_at_the_prompt_ends_it_quietly(environ: dict[str, str]) -> None:
    run(environ, "init")
    with terminal(environ, "put", "a") as person:
        person.wait_for("(not shown): ")
        time.sleep(0.2)
        person.type("\x03")
        assert person.end() == 130
        assert "Traceback" not in person.shown
        assert "error" not in person.shown
    assert run(environ, "get", "a").returncode == 20


def test_control_c_while_stdin_is_read_ends_it_quietly(environ: dict[str, str]) -> None:
    run(environ, "init")
    process = subprocess.Popen(
        [*LEDGER, "put", "a"], env=environ, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")


def test_destroy_on_a_terminal_asks_for_the_name_again(environ: dict[str, str]) -> None:
    run(environ, "put", "a", value=b"1")
    for typed, code in (("b", 2), ("a", 0)):
        with terminal(environ, "destroy", "a", "--reason", "x") as person:
            person.wait_for("This destroys a for good. Type its name again: ")
            person.type(f"{typed}\n")
            assert person.end() == code
    assert run(environ, "get", "a").returncode == 21


def test_lists_are_tables_on_a_terminal(environ: dict[str, str]) -> None:
    run(environ, "put", "db/pw", "--actor", "a\x1b[2Jb[red]", value=b"1")
    for words, columns in (
        (["list"], ["name", "version", "state", "actor", "key id"]),
        (["history", "db/pw"], ["version", "event type", "actor"]),
        (["keys", "status"], ["key id", "key fingerprint", "held"]),
    ):
        code, shown = on_terminal(environ, *words)
        assert code == 0
        for column in columns:
            assert column in shown
    _, shown = on_terminal(environ, "list")
    assert "a\\u001b[2Jb[red]" in re.sub(r"\s", "", shown)
    assert "\x1b[2J" not in shown
    assert "note: there are none" in on_terminal(environ, "list", "none")[1]
    assert "nothing is wrong" in on_terminal(environ, "verify", "--level", "full")[1]
    code, shown = on_terminal(environ, "health")
    assert re.search(r"^ready: +yes$", shown, re.MULTILINE)
    assert "the same as the log" in on_terminal(environ, "projections", "check")[1]


def test_a_pipe_that_closes_early_ends_it_quietly(environ: dict[str, str]) -> None:
    script = (
        "import asyncio, os\n"
        "from secret_ledger import Keyring, SecretLedger\n"
        "async def fill():\n"
        "    url = os.environ['OS_SECRET_LEDGER_URL']\n"
        "    async with SecretLedger.open(url, Keyring.from_env()) as ledger:\n"
        "        await ledger.put_many({f'n/{i:04}': 'x' for i in range(3000)})\n"
        "asyncio.run(fill())\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environ, check=True)
    for words in ("list", "list --json", "list n/ --all"):
        shell = f"{sys.executable} -m secret_ledger {words} | head -1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", shell], env=environ, capture_output=True, text=True, check=False
        )
        assert done.stdout.splitlines()[-1] == "141"
        assert done.stderr == ""


def test_a_closed_stdin_or_stdout_is_no_traceback(environ: dict[str, str]) -> None:
    run(environ, "init")
    for shell, code in (("put a <&-", 2), ("list >&-", 0), ("list 2>&-", 0), ("init >&-", 1)):
        command = f"{sys.executable} -m secret_ledger {shell}"
        done = subprocess.run(
            ["bash", "-c", command], env=environ, capture_output=True, check=False
        )
        assert b"Traceback" not in done.stderr
        assert done.returncode == code


def test_output_that_is_lost_is_an_error_that_says_so_and_what_was_done_stays(
    environ: dict[str, str],
) -> None:
    run(environ, "put", "a", value=b"one")
    for shell, problem in (
        ("printf two | put a > /dev/full", "No space left on device"),
        ("get a > /dev/full", "No space left on device"),
        ("get a >&-", "Bad file descriptor"),
        ("--help > /dev/full", "No space left on device"),
    ):
        *before, words = shell.rpartition("| ")
        command = "".join([*before, f"{sys.executable} -m secret_ledger {words}"])
        done = subprocess.run(
            ["bash", "-c", command], env=environ, capture_output=True, text=True, check=False
        )
        error, hint = [e for e in done.stderr.splitlines() if "WAL-reset" not in e]
        assert done.returncode == 1, shell
        assert error == f"error: stdout can't be written: {problem}; the command's output is lost"
        assert "a command writes to the ledger before it prints" in hint
    assert run(environ, "get", "a").stdout == b"two"


def test_an_error_keeps_its_code_where_stdout_is_full(environ: dict[str, str]) -> None:
    run(environ, "init")
    environ["OS_SECRET_KEY"] = "ff" * 31 + "00"
    command = f"{sys.executable} -m secret_ledger health > /dev/full"
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, check=False)
    assert done.returncode == 11
    assert b"note: stdout can't be written" in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_a_remark_that_cannot_be_written_stops_no_work(environ: dict[str, str]) -> None:
    command = f"printf one | {sys.executable} -m secret_ledger put a 2> /dev/full"
    made = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, check=False)
    assert made.returncode == 0  # though it had a warning to give: the ledger was made
    assert run(environ, "get", "a").stdout == b"one"


def test_a_working_directory_that_is_gone_is_said(environ: dict[str, str], tmp_path: Path) -> None:
    run(environ, "put", "a", value=b"one")
    for url, words, code, said in (
        (environ["OS_SECRET_LEDGER_URL"], "get a", 0, ""),
        (
            "sqlite+aiosqlite:///app.db",
            "get a",
            40,
            "the working directory of this process is gone",
        ),
        ("sqlite+aiosqlite:///app.db", "keygen --file key", 16, "the key file can't be made"),
    ):
        folder = tmp_path / "gone"
        folder.mkdir()
        command = f"cd {folder} && rmdir {folder} && exec {sys.executable} -m secret_ledger {words}"
        done = subprocess.run(
            ["bash", "-c", command],
            env={**environ, "OS_SECRET_LEDGER_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_any_encoding_of_stdout_can_show_any_name(environ: dict[str, str]) -> None:
    environ["PYTHONIOENCODING"] = "ascii"
    name = "caf\u00e9/\u2713"
    assert run(environ, "put", name, value=b"1").returncode == 0
    assert run(environ, "get", name).stdout == b"1"
    assert run(environ, "list").stdout.startswith(b"caf\\xe9/\\u2713\t")
    assert b"\\u2713" in run(environ, "list", "--json").stdout
    assert run(environ, "--help").returncode == 0


def test_without_its_extra_it_says_what_to_install(environ: dict[str, str]) -> None:
    script = (
        "import sys; sys.modules['cyclopts'] = None\n"
        "from secret_ledger.cli import main; sys.exit(main(['list']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "error: the command line needs cyclopts",
        "hint: pip install 'secret-ledger[cli]'",
    ]


def test_help_loads_no_database_driver_and_no_cipher(environ: dict[str, str]) -> None:
    script = (
        "import sys; from secret_ledger.cli import main; main(['--help'])\n"
        "heavy = {'sqlalchemy', 'aiosqlite', 'asyncpg', 'cryptography', 'structlog', 'asyncio'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_keygen_into_a_file_that_others_can_read_says_so(
    environ: dict[str, str], tmp_path: Path
) -> None:
    for mask, words, warned in (
        ("022", "keygen", 1), ("022", "keygen --json", 1), ("027", "keygen", 1),
        ("077", "keygen", 0), ("022", f"keygen --file {tmp_path}/own", 0),
    ):  # fmt: skip
        shell = f"umask {mask}; {sys.executable} -m secret_ledger {words} > {tmp_path}/key"
        done = subprocess.run(
            ["bash", "-c", shell], env=environ, capture_output=True, text=True, check=False
        )
        (tmp_path / "key").unlink()
        assert done.returncode == 0
        assert done.stderr.count("stdout is a file that others can read") == warned, words
