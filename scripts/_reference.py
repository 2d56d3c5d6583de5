"""The pages of docs/reference/, made from the code: settings, errors, command line, Python.

    ./scripts/reference

`tests/test_reference.py` compares the pages with the result of `pages()`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from cyclopts import App

import secret_ledger
import secret_ledger_projections
from secret_ledger import alembic, errors, readiness
from secret_ledger.cli import app as root
from secret_ledger.cli import key_audit, keys, migrating, nodes, secrets, verifying, watching
from secret_ledger.cli import projections as projections_verbs
from secret_ledger.config import settings

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "docs" / "reference"
COMMAND: Final = "./scripts/reference"

SETTINGS: Final = {
    "OS_SECRET_KEY": (
        "The current root key: what `secret-ledger keygen` prints, 64 hex digits, or canonical"
        " base64 or base64url of 32 bytes.",
        "none: without a key nothing is opened for writing",
    ),
    "OS_SECRET_KEY_ID": (
        "The label of that key: `[a-z0-9._:/-]`, up to 64 characters. A label stays with its key"
        " once a ledger knows it.",
        "a label made from the key's fingerprint",
    ),
    "OS_SECRET_PREVIOUS_KEYS": (
        "Keys that only decrypt, separated by commas or newlines, each `[id=]key`.",
        "none",
    ),
    "OS_SECRET_LEDGER_ID": (
        "The id of the one ledger to open: 32 hex digits, or a UUID. No other ledger is opened,"
        " and none is made.",
        "none: any ledger is opened",
    ),
    "OS_SECRET_LEDGER_URL": (
        "The database of the command line: `sqlite+aiosqlite:///file.db` or"
        " `postgresql+asyncpg://user@host/database`. A program passes its URL to"
        " `SecretLedger.open`.",
        "none: a verb needs this setting or `--url`",
    ),
    "OS_SECRET_LEDGER_SCHEMA": (
        "PostgreSQL's schema. `schema=` and `--schema` come first. SQLite has no schemas and"
        " ignores it.",
        "`secret_ledger`",
    ),
    "OS_SECRET_LEDGER_TARGET_URL": (
        "The database that `secret-ledger migrate` moves the ledger to. `--to` is the same for a"
        " URL without a password.",
        "none: `migrate` stays in the database",
    ),
    "OS_SECRET_MODE": (
        "`development`: if no key is configured, one is made, once, and kept in the file"
        " `dev-key`. Production refuses that key. Any other value means `production`.",
        "`production`",
    ),
    "OS_SECRET_HOME": (
        "The directory of the development key: an absolute path, which may begin with `~`.",
        "`~/.secret-ledger`",
    ),
}
"""The meaning and the default of each setting. A test compares the names with the code."""

FIELDS: Final[dict[str, Mapping[str, Sequence[str]]]] = {
    **{verb: {"": secrets._WRITTEN} for verb in ("put", "delete", "restore", "destroy")},
    "list": {"": secrets._SECRET.all},
    "history": {"": secrets._VERSION.all},
    "verify": {"findings": verifying.FINDING.all},
    "keys status": {"": keys._KEY.all},
    "keys history": {"": key_audit._HISTORY.all},
    "keys census": {"secrets": key_audit._HEAD.all, "events": key_audit._USE.all},
    "generations list": {"": migrating._GENERATION.all},
    "projections check": {"": projections_verbs._DIFFERENCE.all},
    "nodes": {"": nodes._NODE.all, "--watch, a line for each key": watching._KEY},
}
"""The fields of a verb's lines, named as in --json. The help of every other verb lists its own."""


def pages() -> dict[str, str]:
    """Make the text of each page of docs/reference/, by the name of its file."""
    return {
        "settings.md": _page("Settings", _settings()),
        "errors.md": _page("Errors", _errors()),
        "command-line.md": _page("Command line", _command_line()),
        "python.md": _page("Python", _python()),
    }


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"docs/reference/{name}: {len(text.splitlines())} lines")


# --- settings -----------------------------------------------------------------------


def setting_names() -> dict[str, str]:
    """Return the variable that each constant of the settings module names, by constant."""
    known = {name: getattr(settings, name) for name in settings.__all__}
    return {n: v for n, v in known.items() if isinstance(v, str) and v.startswith("OS_SECRET_")}


def _settings() -> Iterator[str]:
    yield (
        "Every environment variable that the library and the command `secret-ledger` read. Each"
        " can also be given as a file: `NAME_FILE` names the file that holds the value. If both"
        " `NAME` and `NAME_FILE` are set, or if a value is blank, the setting is refused"
        " (`invalid_key`, exit code 16). White space around a value is dropped."
    )
    constants = {value: name for name, value in setting_names().items()}
    yield _table(
        ("variable", "meaning", "default", "read in"),
        [
            (f"`{name}`", meaning, default, ", ".join(_readers(constants[name])))
            for name, (meaning, default) in SETTINGS.items()
        ],
    )
    yield (
        "A file that holds a key or a URL must be closed to group and others, else it is refused"
        " (`insecure_key_file`, exit code 16). Files on a read-only mount and files under"
        " `$CREDENTIALS_DIRECTORY` are exempt. An empty file of `OS_SECRET_PREVIOUS_KEYS_FILE`"
        " holds no keys; any other empty file is refused."
    )
    yield "## Variables of the surroundings"
    yield _table(
        ("variable", "meaning"),
        [
            (
                "`CREDENTIALS_DIRECTORY`",
                "systemd sets it. If neither `OS_SECRET_KEY` nor `OS_SECRET_KEY_FILE` is set, the"
                " key is read from its file `os-secret-key`.",
            ),
            ("`HOME`", "The place of `~`, for `OS_SECRET_HOME` and its default."),
            (
                "`LOGNAME`, `USER`, `LNAME`, `USERNAME`",
                "The first that is set is the default of `--actor`; without any, the name of the"
                " process's user.",
            ),
            ("`COLUMNS`, `TERM`, `NO_COLOR`", "How wide a table is, and whether it has colours."),
        ],
    )


def _readers(constant: str) -> list[str]:
    """A file reads a setting if it names the setting's constant in a call that reads a setting."""
    return [f"`{file}`" for file, names in _reads().items() if constant in names]


@cache
def _reads() -> dict[str, set[str]]:
    package = Path(secret_ledger.__file__).parent
    found = {}
    for file in sorted(package.rglob("*.py")):
        calls = (n for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.Call))
        reads = (c for c in calls if getattr(c.func, "id", "") in {"setting", "secret_setting"})
        names = {getattr(a, "id", "") for call in reads for a in call.args}
        found[str(file.relative_to(package.parent))] = names
    return found


# --- errors -------------------------------------------------------------------------


def _errors() -> Iterator[str]:
    yield (
        "Every error that the library raises is a `LedgerError`. `code` is stable and meant for"
        " programs. `exit_code` is what the command line ends with. `hint` says the way out, where"
        " there is one; tracebacks and the command line show it. `details` holds the facts behind"
        " the message. `outcome_unknown` is true if the write that failed may have been committed."
    )
    yield "## The tree"
    tree = [f"{'':2}{each.__name__:26}{each.exit_code:>3}  {each.code}" for each in _classes()]
    yield _block("LedgerError\n" + "\n".join(tree))
    yield "## Each error"
    yield (
        "An error without a hint here has one where it is raised, if the way out depends on the"
        " case."
    )
    for each in sorted(_classes(), key=lambda one: (one.exit_code, one.__name__)):
        yield f"### {each.__name__}"
        yield f"Code `{each.code}`, exit code {each.exit_code}."
        yield _first_paragraph(each)
        if each.default_hint:
            yield f"Hint: {each.default_hint}."


def _classes() -> list[type[errors.LedgerError]]:
    found = [getattr(errors, name) for name in errors.__all__]
    return [each for each in found if each is not errors.LedgerError]


# --- the command line ---------------------------------------------------------------


def verbs(app: App | None = None, *path: str) -> Iterator[tuple[str, App]]:
    """Yield the full name of each verb with its app, in the order of the help."""
    app = app or root.make_app()
    names = [name for name in app if not name.startswith("-")]
    for name in sorted(names, key=lambda one: (app[one].sort_key or 0, one if path else "")):
        if app[name].default_command is None:
            yield from verbs(app[name], *path, name)
        else:
            yield " ".join((*path, name)), app[name]


def _command_line() -> Iterator[str]:
    yield (
        "Every verb of `secret-ledger`. `secret-ledger VERB --help` says the same on a terminal."
        " The settings are in [settings](settings.md)."
    )
    yield (
        "Data goes to stdout, everything else to stderr. On a terminal, a list is a table. In a"
        " pipe, it is lines of tab-separated fields. With `--json` it is one JSON document. A"
        " field that is unknown is empty. In a line, a backslash, a tab and a line break are"
        " written as `\\\\`, `\\t` and `\\n`."
    )
    yield "## Exit codes"
    by_code: dict[int, list[str]] = {0: ["done"], 1: ["an error that nobody foresaw"]}
    by_code[2] = ["the command can't be carried out as it was typed"]
    for each in _classes():
        by_code.setdefault(each.exit_code, []).append(f"[`{each.code}`]({_anchor(each)})")
    by_code |= {130: ["interrupted (Ctrl-C)"], 141: ["the reader of stdout has gone"]}
    yield _table(
        ("exit code", "meaning"),
        [(str(code), ", ".join(meaning)) for code, meaning in sorted(by_code.items())],
    )
    every = list(verbs())
    yield "## Options of every verb"
    yield _options(every[0][1], everywhere=True)
    for name, verb in every:
        yield f"## {name}"
        yield _block(_usage(name, verb))
        help_text = inspect.cleandoc(verb.help)
        yield from help_text.split("\n\n")
        options = _options(verb, everywhere=False)
        if options:
            yield options
        for kind, fields in FIELDS.get(name, {}).items():
            named = " ".join(f"`{field}`" for field in fields)
            yield f"Names of the fields{f' ({kind})' if kind else ''}: {named}"
        example = re.match(r"Examples:\n(.*?)\n\n?Exit", verb.help_epilogue or "", re.DOTALL)
        if example:
            yield _block(textwrap.dedent(example[1]).strip("\n"))


def _anchor(error: type[errors.LedgerError]) -> str:
    return f"errors.md#{error.__name__.lower()}"


def _arguments(verb: App) -> Iterator[tuple[Any, bool]]:
    """Yields each argument of a verb, and whether every verb has that argument."""
    for argument in verb.assemble_argument_collection(parse_docstring=False):
        if argument.show and not argument.children:
            groups = {getattr(group, "name", "") for group in _tuple(argument.parameter.group)}
            yield argument, "Options of every verb" in groups


def _tuple(groups: object) -> tuple[object, ...]:
    return groups if isinstance(groups, tuple) else (groups,)


def _usage(name: str, verb: App) -> str:
    words = ["secret-ledger", name]
    for argument, everywhere in _arguments(verb):
        shown = argument.names[0]
        if argument.hint is not bool and shown.startswith("--"):
            shown = f"{shown} {_value(argument)}"
        if not everywhere:
            words.append(shown if argument.required else f"[{shown}]")
    return "\n".join(
        textwrap.wrap(" ".join(words), 96, subsequent_indent="    ", break_on_hyphens=False)
    )


def _value(argument: Any) -> str:
    text = str(argument.hint)
    if "Literal" in text:
        return "|".join(re.findall(r"'([\w-]+)'", text))
    kinds = {"int": "NUMBER", "float": "NUMBER", "Path": "FILE"}
    return next((shown for kind, shown in kinds.items() if kind in text), "TEXT")


def _options(verb: App, *, everywhere: bool) -> str:
    lines = []
    for argument, shared in _arguments(verb):
        if shared is not everywhere:
            continue
        default = argument.field_info.default
        said = argument.parameter.show_default is not False and default not in (None, "", False)
        said = said and default is not inspect.Parameter.empty
        required = " Required." if argument.required else ""
        text = f"{argument.parameter.help}{required}{f' Default: `{default}`.' if said else ''}"
        lines.append(_wrap(f"`{argument.names[0]}`: {text}", "- "))
    return "\n".join(lines)


# --- Python -------------------------------------------------------------------------


def _python() -> Iterator[str]:
    yield (
        "The public names of `secret_ledger` and `secret_ledger_projections`, with their signatures"
        " and docstrings."
        " Everything is for asyncio. Every error is in [errors](errors.md), and every name that"
        " is not on this page is private."
    )
    named = [name for name in secret_ledger.__all__ if name not in errors.__all__]
    yield "## SecretLedger"
    yield from _class(secret_ledger.SecretLedger, "open")
    for name in sorted(set(named) - {"SecretLedger", "DEFAULT"}):
        yield f"## {name}"
        yield from _thing(getattr(secret_ledger, name))
    for module in (readiness, alembic, secret_ledger_projections):
        yield f"## Module {module.__name__}"
        for name in sorted(module.__all__):
            yield f"### {module.__name__}.{name}"
            yield from _thing(getattr(module, name))


def _thing(thing: Any) -> Iterator[str]:
    if inspect.isclass(thing):
        yield from _class(thing)
    else:
        yield from _function(thing.__name__, thing)


def _class(cls: type, *first: str) -> Iterator[str]:
    made_up = (cls.__doc__ or "").startswith(f"{cls.__name__}(")  # made by dataclass
    yield from _prose("" if made_up else inspect.getdoc(cls))
    if constants := _constants(cls):
        yield _wrap(" ".join(f"`{value}`" for value in constants))
    if named := getattr(cls, "_fields", ()):
        yield _wrap(f"Fields: {' '.join(f'`{name}`' for name in named)}")
    if dataclasses.is_dataclass(cls):
        yield _fields(cls)
    yield _attributes(cls)
    members = [name for name in vars(cls) if not name.startswith("_")]
    for name in (*first, *(name for name in members if name not in first)):
        member = vars(cls)[name]
        if isinstance(member, property):
            returned = inspect.signature(member.fget or len).return_annotation
            yield f"### {cls.__name__}.{name}"
            yield _block(f"{cls.__name__}.{name} -> {_annotation(returned)}")
            yield from _prose(inspect.getdoc(member))
        elif isinstance(member, staticmethod | classmethod) or inspect.isfunction(member):
            yield f"### {cls.__name__}.{name}"
            yield from _function(f"{cls.__name__}.{name}", getattr(cls, name), member)


def _fields(cls: type) -> str:
    said = _said_of_fields(cls)
    lines = []
    for field in dataclasses.fields(cls):
        if not field.name.startswith("_"):
            text = f"`{field.name}: {_annotation(field.type)}`"
            lines.append(_wrap(f"{text} {said.get(field.name, '')}".strip(), "- "))
    return "\n".join(lines)


def _constants(cls: type) -> list[str]:
    known = {n: v for n, v in vars(cls).items() if n.isupper() and isinstance(v, str)}
    return list(known.values())


def _attributes(cls: type) -> str:
    """Lists the attributes with a docstring in a class's `__init__`."""
    made = vars(cls).get("__init__")
    if not inspect.isfunction(made) or dataclasses.is_dataclass(cls):
        return ""
    statements = _statements(made)
    lines = []
    for field, below in pairwise(statements):
        if isinstance(field, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr):
            target = field.target if isinstance(field, ast.AnnAssign) else field.targets[0]
            text = getattr(below.value, "value", None)
            if isinstance(text, str) and "._" not in ast.unparse(target):
                name = ast.unparse(target).removeprefix("self.")
                lines.append(_wrap(f"`{name}`: {' '.join(text.split())}", "- "))
    return "\n".join(lines)


def _said_of_fields(cls: type) -> dict[str, str]:
    """The docstrings of a class's fields; its base classes count too."""
    said: dict[str, str] = {}
    for each in reversed(cls.__mro__[:-1]):
        for field, below in pairwise(_statements(each)):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = inspect.cleandoc(str(ast.literal_eval(below.value)))
                said[ast.unparse(field.target)] = " ".join(text.split())
    return said


def _statements(thing: Callable[..., Any]) -> list[ast.stmt]:
    (defined,) = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    return list(getattr(defined, "body", []))


def _function(name: str, function: Callable[..., Any], raw: object = None) -> Iterator[str]:
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in {"self", "cls"}]
    if raw is None or isinstance(raw, staticmethod | classmethod):
        parameters = list(signature.parameters.values())
    inner = inspect.unwrap(function)
    word = "async " if inspect.iscoroutinefunction(inner) else ""
    returned = _annotation(signature.return_annotation)
    if awaited := re.fullmatch(r"Coroutine\[Any, Any, (.*)\]", returned):
        word, returned = "async ", awaited[1]
    if inspect.isasyncgenfunction(inner) and inner is not function:
        word, returned = "async with ", re.sub(r"AsyncIterator\[(.*)\]", r"\1", returned)
    shown = [_parameter(p) for p in parameters]
    star = next((n for n, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), None)
    if star is not None:
        shown.insert(star, "*")
    slash = sum(p.kind is p.POSITIONAL_ONLY for p in parameters)
    if slash:
        shown.insert(slash, "/")
    line = f"{word}{name}({', '.join(shown)}) -> {returned}"
    if len(line) > 96:
        inside = "".join(f"    {each},\n" for each in shown)
        line = f"{word}{name}(\n{inside}) -> {returned}"
    yield _block(line)
    yield from _prose(inspect.getdoc(function))


def _parameter(parameter: inspect.Parameter) -> str:
    text = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f" = {_default(parameter.default)}"
    return text


def _default(value: object) -> str:
    """The repr of `os.environ` would show every value, keys included."""
    if value is os.environ:
        return "os.environ"
    if (
        value is None
        or isinstance(value, bool | int | float | str | type(secret_ledger.DEFAULT))
        or value == ()
    ):
        return repr(value)
    return "…"


def _annotation(annotation: object) -> str:
    if isinstance(annotation, type):
        return annotation.__name__
    return re.sub(r"\bsecret_ledger\w*\.(?:\w+\.)*", "", str(annotation).strip("'\""))


# --- Markdown -----------------------------------------------------------------------


def _page(title: str, parts: Iterator[str]) -> str:
    made = f"<!-- Made from the code. To write it anew: {COMMAND} -->"
    wrapped = [part if _is_laid_out(part) else _wrap(part) for part in parts if part]
    return "\n\n".join([f"# {title}", made, *wrapped]) + "\n"


def _is_laid_out(part: str) -> bool:
    return part.startswith(("#", "|", "```", "- "))


def _first_paragraph(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def _prose(docstring: str | None) -> Iterator[str]:
    """Yields a docstring's paragraphs, and its parameters (`name: meaning`) as a list."""
    for part in (docstring or "").replace("``", "`").split("\n\n"):
        if re.match(r"\w+: ", part) and all(
            re.match(r"\w+: |\s", line) for line in part.splitlines()
        ):
            items = re.split(r"\n(?=\w+: )", part)
            named = (re.sub(r"^(\w+): ", r"`\1`: ", " ".join(item.split())) for item in items)
            yield "\n".join(_wrap(item, "- ") for item in named)
        elif part.startswith("    "):
            yield _block(textwrap.dedent(part))
        elif part.strip() != "::":
            yield part.removesuffix("::")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _block(text: str) -> str:
    return f"```text\n{text}\n```"


def _wrap(text: str, bullet: str = "") -> str:
    return "\n".join(
        textwrap.wrap(
            " ".join(text.split()), 100, initial_indent=bullet,
            subsequent_indent=" " * len(bullet), break_long_words=False, break_on_hyphens=False,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
