"""Commands that can't be understood: exit 2, and a hint what to type instead.

A message repeats a word of the command only if the word has the shape of an option or a verb, and
no value can stand in its place. If a user gives a secret as an argument by mistake, the shell's
history holds it already: a log of stderr must not hold it too.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, ClassVar, Final, Literal, get_args, get_origin

from cyclopts import App, CycloptsError
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

__all__ = ["UsageError", "explain"]

_WORD: Final = re.compile(r"[a-z][a-z-]{0,19}")
_OTHER_WORDS: Final[dict[str, dict[str, str]]] = {
    "": {
        **dict.fromkeys(("rm", "remove", "del"), "delete"),
        **dict.fromkeys(("ls", "dir", "find"), "list"),
        **dict.fromkeys(("set", "add", "write", "store", "save", "update", "edit"), "put"),
        **dict.fromkeys(("read", "show", "cat", "print", "reveal"), "get"),
        **dict.fromkeys(("undelete", "recover"), "restore"),
        **dict.fromkeys(("log", "versions", "audit"), "history"),
        **dict.fromkeys(("status", "ready", "doctor"), "health"),
        **dict.fromkeys(("create", "new"), "init"),
        **dict.fromkeys(("check", "fsck", "validate"), "verify"),
        **{verb: f"keys {verb}" for verb in ("rotate", "rekey", "census")},
        "upgrade": "schema upgrade",
        "grants": "schema grants",
        "rebuild": "projections rebuild",
    },
    "keys": {
        **dict.fromkeys(("list", "ls", "show", "get"), "keys status"),
        **dict.fromkeys(("log", "audit"), "keys history"),
        **dict.fromkeys(("new", "generate", "create", "add"), "keygen"),
    },
    "generations": dict.fromkeys(("ls", "show", "status", "history"), "generations list"),
    "projections": dict.fromkeys(("verify", "list", "status"), "projections check"),
    "schema": dict.fromkeys(("update", "migrate"), "schema upgrade"),
}
"""Other programs' words for our verbs, by the family in which the user typed the word."""
_ENDING: Final = frozenset(("delete", "destroy", "retire", "lost", "purge"))
"""Verbs that end something: no hint suggests such a verb for a misspelt word."""


class UsageError(Exception):
    """The command can't be carried out as it was typed. It is shown like a LedgerError."""

    code: ClassVar[str] = "usage"
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = {}


def explain(error: CycloptsError, app: App) -> UsageError:
    """Say a refusal of cyclopts in our words."""
    chain = tuple(error.command_chain or ())
    command = " ".join(("secret-ledger", *chain))
    help_hint = f"{command} --help"
    name = error.argument.name if error.argument is not None else "an argument"
    match error:
        case UnknownCommandError():
            return _unknown_verb(error, app, chain, help_hint)
        case UnusedCliTokensError() | UnknownOptionError() if chain == ("put",):
            return _value_as_argument(error)
        case UnusedCliTokensError():
            many = len(error.unused_tokens or ()) != 1
            problem = f"{command}: {'arguments' if many else 'one argument'} too many"
            return UsageError(problem, hint=help_hint)
        case UnknownOptionError():
            option = _option(error)
            near = _near_options(error)
            problem = f"{command} has no {f'option {option}' if option else 'such option'}"
            return UsageError(problem, hint=f"did you mean {near}?" if near else help_hint)
        case MissingArgumentError():
            verb = "needs a value" if error.keyword else "is missing"
            return UsageError(f"{command}: {name} {verb}", hint=help_hint)
        case RepeatArgumentError():
            return UsageError(f"{command}: {error.token.keyword} is given twice", hint=help_hint)
        case CoercionError():
            return UsageError(f"{command}: {name} takes {_kind(error)}", hint=help_hint)
    return UsageError(f"{command}: the arguments can't be understood", hint=help_hint)


def _kind(error: CoercionError) -> str:
    hint = error.argument.hint if error.argument is not None else None
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    kinds = {int: "a whole number", float: "a number"}
    return next((kinds[t] for t in kinds if error.target_type is t), "another kind of value")


def _unknown_verb(
    error: CycloptsError, app: App, chain: tuple[str, ...], help_hint: str
) -> UsageError:
    word = next(iter(error.unused_tokens or ()), "")
    family = app
    for name in chain:
        family = family[name]
    verbs = sorted(name for name in family if not name.startswith("-"))
    shown = f" {word}" if _WORD.fullmatch(word) else ""
    meant = _OTHER_WORDS.get(" ".join(chain), {}).get(word)
    if meant is None:
        near = get_close_matches(word, verbs, n=1)
        meant = " ".join((*chain, *near)) if near and near[0] not in _ENDING else None
    if meant is None:
        return UsageError(f"there is no verb{shown}", hint=help_hint)
    hint = f"did you mean: secret-ledger {meant}"
    if meant == "delete":
        hint += " (a deleted secret can be restored)"
    return UsageError(f"there is no verb{shown}", hint=hint)


def _value_as_argument(error: CycloptsError) -> UsageError:
    near = _near_options(error) if isinstance(error, UnknownOptionError) else ""
    if near:
        return UsageError("put has no such option", hint=f"did you mean {near}?")
    return UsageError(
        "put takes no value as an argument: the process list and the shell's history would show it",
        hint='printf %s "$VALUE" | secret-ledger put NAME, or put NAME --file FILE, or put NAME'
        " and type it; if you have just given a real value, change that password or key at its"
        " source",
    )


def _option(error: UnknownOptionError) -> str:
    text = (error.token.keyword or error.token.value).partition("=")[0]
    return text if re.fullmatch(r"--?[a-z][a-z-]{0,19}", text) else ""


def _near_options(error: UnknownOptionError) -> str:
    known = [name for argument in error.argument_collection for name in argument.names]
    return next(iter(get_close_matches(_option(error), known, n=1, cutoff=0.75)), "")
