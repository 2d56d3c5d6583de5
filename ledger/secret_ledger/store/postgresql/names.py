"""Qualifies PostgreSQL's own names in a statement: functions, operators, types.

The session's `search_path` decides which `count`, `=` or `text` a bare name means. A role, a
database or an application sets that path, and a schema on it can hold its own `min(text)`. So
statements are written as they read best, and `qualified` puts `pg_catalog` into them, once for
each statement, before a server parses it. This module sets nothing for the session, because a
connection may belong to the host, or to a pooler.

See PostgreSQL's manual, 5.10.6 and 10.2, and CVE-2018-1058.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

__all__ = ["qualified"]

_TOKEN: Final = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*|/\*.*?\*/)
  | (?P<text>'(?:[^']|'')*'|\$(?P<tag>[a-z_]*)\$.*?\$(?P=tag)\$)
  | (?P<quoted>"(?:[^"]|"")*")
  | (?P<word>[a-z_]\w*)
  | (?P<value>\d[\d.]*|\$\d+|:[a-z_]\w*)
  | (?P<cast>::)
  | (?P<operator>[-+*/<>=!~%|&^@\#?]+)
  | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_SYNTAX: Final = frozenset((
    "all", "any", "array", "as", "cast", "coalesce", "exists", "extract", "from", "greatest",
    "in", "least", "lateral", "on", "or", "and", "not", "row", "select", "values", "when",
    "where", "using", "check", "unique", "key", "set", "with", "then", "else", "bit", "char",
    "character", "decimal", "float", "numeric", "time", "timestamp", "varchar",
))  # fmt: skip
"""Words that are no function, though a bracket follows. The parser resolves them by itself."""
_TYPES: Final = frozenset((
    "bool", "bytea", "date", "float4", "float8", "int2", "int4", "int8", "json", "jsonb", "name",
    "oid", "regclass", "text", "timestamptz", "uuid",
))  # fmt: skip
"""Types that the search path resolves. It does not resolve keywords, such as `bigint`."""
_NO_OPERAND: Final = frozenset((
    "all", "and", "any", "as", "by", "case", "distinct", "else", "from", "having", "in", "into",
    "limit", "not", "offset", "on", "or", "returning", "select", "set", "then", "union", "values",
    "when", "where",
))  # fmt: skip
"""Words that are no operand: an operator after them has no left side, and `*` means all columns."""
_UNNAMED: Final = frozenset(("between", "escape", "natural", "nullif", "overlaps", "similar"))
"""Words that stand for an operator of the search path, and take no schema.

So do CASE with a value that it compares, IS DISTINCT FROM, and USING of a join.
"""
_NAMED: Final = {"in": ("=", "<>"), "like": ("~~", "!~~"), "ilike": ("~~*", "!~~*")}
"""Words that stand for an operator: the operator of the word, and of NOT with the word."""
_END_OF_SET: Final = frozenset(("from", "where", "returning"))


class _Token(NamedTuple):
    kind: str
    text: str
    word: str
    """The text in lower case if the token is a word; else empty."""


_NOTHING: Final = _Token("", "", "")


@lru_cache(maxsize=1024)
def qualified(sql: str) -> str:
    """The statements of `sql` with `pg_catalog` before each name that the path would resolve.

    Tables must be qualified already. Qualified operators all bind equally, from left to right. So
    arithmetic must stand on the left of a comparison, or in brackets; else the server refuses it.
    Raises ValueError if the syntax compares by names of the path, as BETWEEN does.
    """
    return _Rewriting(sql).text()


class _Rewriting:
    def __init__(self, sql: str) -> None:
        self._tokens = [_token(match) for match in _TOKEN.finditer(sql)]
        self._out: list[str] = []
        self._before = _NOTHING  # the last token that is no space
        self._closing: list[str] = []  # the text that closes each open bracket
        self._casting: list[bool] = []
        self._bare: list[bool] = []  # brackets that hold settings, as WITH (fillfactor = 20) does
        self._assigning: int | None = None  # how many brackets are open around SET
        self._assigned = False
        first = [token.word for token in self._tokens if token.kind != "space"][:2]
        self._defines = first in (["create", "table"], ["alter", "table"])

    def text(self) -> str:
        for at, token in enumerate(self._tokens):
            if token.kind == "space":
                self._out.append(token.text)
                continue
            self._out.append(self._written(at, token))
            self._before = token
        return "".join(self._out)

    def _written(self, at: int, token: _Token) -> str:
        if token.kind == "word":
            return self._word(at, token)
        if token.kind == "operator":
            return self._operator(token)
        if token.kind == "quoted" and self._before.word == "collate":
            return f"pg_catalog.{token.text}"
        if token.kind == "mark":
            return self._mark(at, token)
        return token.text

    def _word(self, at: int, token: _Token) -> str:
        before, word = self._before, token.word
        if before.text == ".":
            return token.text
        if self._compares(at, word):
            raise ValueError(f"{word} can't be qualified: write the operator itself")
        if word == "set":
            self._assigning, self._assigned = len(self._closing), False
        elif word in _END_OF_SET and self._assigning == len(self._closing):
            self._assigning = None
        elif word == "not" and self._following(at).word in _NAMED:
            return ""  # the next word's operator includes it
        elif word in _NAMED:
            negated = before.word == "not"
            named = f"OPERATOR(pg_catalog.{_NAMED[word][negated]})"
            return named if word != "in" else f"{named} {'ALL' if negated else 'ANY'}"
        elif self._is_function(at, word) or self._is_type(word):
            return f"pg_catalog.{token.text}"
        return token.text

    def _compares(self, at: int, word: str) -> bool:
        if word == "distinct":
            return self._before.word in ("is", "not")
        if word == "case":
            return self._following(at).word != "when"
        if word == "using":
            return self._following(at).text == "("
        return word in _UNNAMED

    def _is_function(self, at: int, word: str) -> bool:
        adjacent = at + 1 < len(self._tokens) and self._tokens[at + 1].text == "("
        if adjacent and word == "unnest":
            # With several arrays UNNEST is syntax, which PostgreSQL resolves to its own function.
            return not self._takes_several(at + 1)
        return adjacent and word not in _SYNTAX

    def _takes_several(self, at: int) -> bool:
        depth = 0
        for token in islice(self._tokens, at, None):
            depth += (token.text == "(") - (token.text == ")")
            if depth == 0 or (depth == 1 and token.text == ","):
                return depth == 1
        return False

    def _is_type(self, word: str) -> bool:
        before = self._before
        if word not in _TYPES:
            return word == "trigger" and before.word == "returns"
        if before.kind == "cast" or before.word == "returns":
            return True
        if before.word == "as" and self._casting[-1:] == [True]:
            return True
        return self._defines and before.kind in ("word", "quoted")

    def _operator(self, token: _Token) -> str:
        before = self._before
        if token.text == "=" and self._is_assignment():
            self._assigned = True
            return token.text
        has_left_side = (
            before.kind in ("text", "quoted", "value")
            or (before.kind == "word" and before.word not in _NO_OPERAND)
            or before.text in (")", "]", "}")
        )
        return f"OPERATOR(pg_catalog.{token.text})" if has_left_side else token.text

    def _is_assignment(self) -> bool:
        if self._bare[-1:] == [True]:
            return True
        return self._assigning == len(self._closing) and not self._assigned

    def _mark(self, at: int, token: _Token) -> str:
        mark = token.text
        if mark == "(":
            return self._open(at)
        if mark == ")" and self._closing:
            self._casting.pop()
            self._bare.pop()
            if self._assigning == len(self._closing):
                self._assigning = None
            return self._closing.pop()
        if mark == "," and self._assigning == len(self._closing):
            self._assigned = False
        if mark == ";":
            self._assigning = None
        return mark

    def _open(self, at: int) -> str:
        before = self._before.word
        listed = before == "in" and self._following(at).word not in ("select", "values")
        self._closing.append("])" if listed else ")")
        self._casting.append(before == "cast")
        self._bare.append(before in ("with", "set"))
        return "(ARRAY[" if listed else "("

    def _following(self, at: int) -> _Token:
        for token in islice(self._tokens, at + 1, None):
            if token.kind != "space":
                return token
        return _NOTHING


def _token(match: re.Match[str]) -> _Token:
    kind, text = match.lastgroup or "", match[0]
    if match["tag"] is not None:
        kind = "text"
    return _Token(kind, text, text.lower() if kind == "word" else "")
