"""README.md and the pages of docs/: their blocks, their links, and a shell that runs a page.

Rules for who writes a page:

- A block is marked by its info string. `python` and `console` are run, in the order of the page, in
  one shell and one temporary folder. Anything that can't be run is `text`.
- In a `console` block a line that begins with `$ ` is a command, and a line that begins with `> `
  continues it. Other lines are what the command prints; `…` stands for what varies, and a line that
  is only `…` for any number of lines. If no output is shown, none is compared.
- A command has to end with 0, unless the output shown has a line that begins with `error: `, or
  `$ echo $?` follows.
- README.md and the quickstart begin with nothing. Any other page begins with two settings:
  OS_SECRET_KEY holds a key, and OS_SECRET_LEDGER_URL names app.db in the folder. There is no ledger
  yet. `export` changes a setting for the rest of the page.
- If the first line of a `python` block is `# name.py`, the block is also written to that file. It
  is run only if no command of the page names the file.
- A URL that begins with `postgresql` leads to the tests' server. Its user and database are made.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from postgresql_server import PostgresServer
from secret_ledger import Key

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")))

FROM_NOTHING = frozenset({"README.md", "docs/quickstart.md"})
RUN = frozenset({"python", "console"})
NOT_RUN = frozenset({"text", "sql", "yaml", "json", "toml", "ini", "dockerfile"})

_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```[ \t]*$", re.MULTILINE | re.DOTALL)
_POSTGRESQL = re.compile(r"postgresql(?:\+asyncpg)?://[^\s\"'`)]+")
_MARK = "\x1e"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


# --- blocks -------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    kind: str
    text: str


@dataclass(frozen=True)
class Step:
    """One command, or one Python example, and what the page says that it prints."""

    where: str
    command: str
    shown: str | None
    fails: bool | None
    """Whether its exit code is another one than 0; None: either."""


def blocks(page: str) -> list[Block]:
    text = text_of(page)
    found = []
    for match in _FENCE.finditer(text):
        indent, kind, inner = match.groups()
        plain = "".join(line.removeprefix(indent) for line in inner.splitlines(keepends=True))
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, kind.strip(), plain))
    return found


def commands(page: str) -> list[str]:
    """Every command of a page, in order, as it is typed."""
    steps = (step for block in blocks(page) if block.kind == "console" for step in _typed(block))
    return [step.command for step in steps]


def _steps(page: str, folder: Path) -> list[Step]:
    found = blocks(page)
    typed = "\n".join(commands(page))
    steps: list[Step] = []
    for number, block in enumerate(found):
        if block.kind == "console":
            steps += _typed(block)
        elif block.kind == "python":
            named = re.match(r"# (\w+\.py)\n", block.text)
            file = folder / (named[1] if named else f"example_{number}.py")
            where = f"{block.page}:{block.line}"
            write = f"cat > {shlex.quote(str(file))} <<'END OF EXAMPLE'\n{block.text}END OF EXAMPLE"
            steps.append(Step(where, write, None, fails=False))
            if not (named and named[1] in typed):
                run = f"python -W error {shlex.quote(str(file))}"
                steps.append(Step(where, run, None, fails=False))
    return steps


def _typed(block: Block) -> list[Step]:
    typed: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if line.startswith("$ "):
            typed.append((number, line[2:], []))
        elif not typed:
            raise AssertionError(f"{block.page}:{number}: a console block begins with `$ `")
        elif line.startswith("> ") and not typed[-1][2]:
            typed[-1] = (typed[-1][0], f"{typed[-1][1]}\n{line[2:]}", [])
        else:
            typed[-1][2].append(line)
    steps = []
    for index, (number, command, output) in enumerate(typed):
        fails: bool | None = any(line.startswith("error: ") for line in output)
        if index + 1 < len(typed) and typed[index + 1][1].split("#")[0].strip() == "echo $?":
            fails = None
        shown = "\n".join(output).strip("\n") or None
        steps.append(Step(f"{block.page}:{number}", command, shown, fails))
    return steps


# --- a page is run ------------------------------------------------------------------


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """A shell's variables, without any setting of this machine."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("OS_SECRET_", "PG"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "COLUMNS": "100",
        **settings,
    }


def _settings() -> dict[str, str]:
    """The settings that a page begins with."""
    return {
        "OS_SECRET_KEY": Key.generate().text().reveal_text(),
        "OS_SECRET_LEDGER_URL": "sqlite+aiosqlite:///app.db",
    }


def needs_postgresql(page: str) -> bool:
    return any(_POSTGRESQL.search(block.text) for block in blocks(page) if block.kind in RUN)


def run(page: str, folder: Path, server: PostgresServer | None = None) -> None:
    """Run every step of a page. Raises AssertionError at the first that goes otherwise."""
    environ = environment(folder, **({} if page in FROM_NOTHING else _settings()))
    steps = _steps(page, folder)
    if server is None:
        _run(steps, folder, environ)
        return
    with _Roles(page, server) as roles:
        environ |= {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "ledger"}
        environ["PATH"] = f"{server.binary('psql').parent}{os.pathsep}{environ['PATH']}"
        steps = [Step(s.where, roles.here(s.command), s.shown, s.fails) for s in steps]
        _run(steps, folder, environ)


def _run(steps: Sequence[Step], folder: Path, environ: Mapping[str, str]) -> None:
    # `pip` has done its work: the suite runs in an environment that has the package.
    script = ["exec 2>&1", "pip() { :; }", ":"]
    for number, step in enumerate(steps):
        refused = {False: "-ne 0", True: "-eq 0", None: "-lt 0"}[step.fails]
        script += [
            step.command,
            f"__ended=$?; printf '\\n{_MARK}%d %d\\n' {number} $__ended",
            f"[ $__ended {refused} ] && exit; (exit $__ended)",
        ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    pieces = re.split(rf"\n{_MARK}(\d+) (\d+)\n", done.stdout)
    outputs, codes = pieces[0::3], pieces[2::3]
    for step, output, code in zip(steps, outputs, codes, strict=False):
        said = f"{step.where}\n$ {step.command}\nended with {code}:\n{output}"
        assert step.fails is None or step.fails == (code != "0"), said
        if step.shown is not None:
            assert as_shown(step.shown, output), f"{said}\nbut the page shows:\n{step.shown}"
    assert len(codes) == len(steps), f"{steps[len(codes)].where}: not run\n{done.stdout[-2000:]}"


def as_shown(shown: str, output: str) -> bool:
    """Whether `output` is what a page shows, where `…` stands for anything and blanks are alike."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else _line_pattern(line) for line in shown.splitlines()
    )
    printed = "".join(f"{' '.join(line.split())}\n" for line in output.strip("\n").splitlines())
    return re.fullmatch(pattern, printed) is not None


def _line_pattern(line: str) -> str:
    return ".*?".join(re.escape(part) for part in " ".join(line.split()).split("…")) + "\n"


class _Roles:
    """The users and databases that a page's URLs name, made on the tests' server."""

    def __init__(self, page: str, server: PostgresServer) -> None:
        text = "\n".join(block.text for block in blocks(page) if block.kind in RUN)
        urls = [urlsplit(url) for url in _POSTGRESQL.findall(text)]
        self._server = server
        self._databases = {unquote(url.path.strip("/")) for url in urls} - {""}
        self._users = {url.username for url in urls if url.username} - {"ledger"}
        self._made_by_page = "createuser" in text or "CREATE ROLE" in text

    def __enter__(self) -> _Roles:
        for database in self._databases:
            self._server.create_database(database)
        for user in () if self._made_by_page else self._users:
            self._psql(f'CREATE ROLE "{user}" LOGIN SUPERUSER')
        return self

    def __exit__(self, *exc_info: object) -> None:
        for database in self._databases:
            self._server.drop_database(database)
        roles = self._psql(
            "SELECT rolname FROM pg_roles WHERE oid >= 16384 AND rolname <> 'ledger'"
        )
        for user in roles.split():
            self._psql(f'DROP ROLE "{user}"')

    def here(self, command: str) -> str:
        """`command` with URLs that lead to the server."""
        return _POSTGRESQL.sub(lambda found: self._here(found[0]), command)

    def _here(self, url: str) -> str:
        parts = urlsplit(url)
        host = f"{parts.username or 'ledger'}@127.0.0.1:{self._server.port}"
        return urlunsplit(parts._replace(netloc=host))

    def _psql(self, statement: str) -> str:
        done = subprocess.run(
            [str(self._server.binary("psql")), "-XAtq", "-c", statement, "-h", "127.0.0.1",
             "-p", str(self._server.port), "-U", "ledger", "postgres"],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        return done.stdout


# --- links --------------------------------------------------------------------------

_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")


def links(page: str) -> list[str]:
    """The relative links and the anchors of a page; not those to other sites."""
    text = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text_of(page)))
    return [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def anchors(page: str) -> set[str]:
    """What a link to a heading of the page may say behind `#`, as GitHub makes it."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", _FENCE.sub("", text_of(page)), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (unique := name if number == 0 else f"{name}-{number}") in found:
            number += 1
        found.add(unique)
    return found
