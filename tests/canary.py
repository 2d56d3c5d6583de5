"""Secrets that are recognised in every form that they could leak in."""

from __future__ import annotations

import base64
import contextlib
import logging
import pickle
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from secret_ledger import LedgerError

TESTS = str(Path(__file__).parent)


def forms(secret: bytes) -> Iterator[bytes]:
    """Raw, hex, base64 at each of its three alignments, UTF-16, and as Python writes bytes."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for shift in range(3):
        # What stands around it changes the first and the last characters: those are left out.
        text = base64.b64encode(bytes(shift) + secret)[4 if shift else 0 : -4]
        yield text
        yield text.replace(b"+", b"-").replace(b"/", b"_")
    yield repr(secret)[2:-1].encode()
    yield secret.decode("latin-1").encode("utf-16-le")
    yield secret.decode("latin-1").encode()
    yield repr(list(secret))[1:-1].encode()


class Watch:
    """Takes in all that was shown anywhere, and names the secrets that it finds in it."""

    def __init__(self, secrets: dict[str, bytes]) -> None:
        self._forms = {name: tuple(set(forms(secret))) for name, secret in secrets.items()}
        self.found: list[str] = []
        self.looked_at = 0

    def look(self, where: str, shown: str | bytes, *, without: Iterable[str] = ()) -> None:
        raw = shown.encode("utf-8", "surrogateescape") if isinstance(shown, str) else shown
        self.looked_at += len(raw)
        for name, all_forms in self._forms.items():
            if name in without:
                continue
            for form in all_forms:
                if form in raw:
                    at = raw.index(form)
                    context = raw[max(0, at - 160) : at + len(form) + 40]
                    self.found.append(f"{name} in {where}: {context!r}")

    def look_at_error(self, error: BaseException) -> None:
        """Its text, attributes and pickle, the chain, and every frame's locals.

        Frames of the tests themselves are left out, for they hold the secrets by design.
        """
        kind = type(error).__name__
        for one in _chain(error):
            self.look(
                f"{kind}'s text", f"{one!r} {one} {one.args!r} {getattr(one, '__dict__', {})!r}"
            )
            for frame, _ in traceback.walk_tb(one.__traceback__):
                if not frame.f_code.co_filename.startswith(TESTS):
                    where = f"{kind}'s frame {frame.f_code.co_qualname}"
                    self.look(where, _locals(frame), without=["a row's column"])
            if isinstance(one, LedgerError):
                self.look(f"{kind}'s hint and details", f"{one.hint} {one.details!r}")
                self.look(f"{kind}, pickled", pickle.dumps(one))

    def look_at_object(self, what: object) -> None:
        """What prints it, formats it, pickles it, and the same of its parts that are ours."""
        for depth, part in _parts(what):
            where = f"{type(what).__name__}, {type(part).__name__} at depth {depth}"
            self.look(where, f"{part!r} {part!s} {part:}" if depth == 0 else f"{part!r} {part!s}")
            try:
                self.look(f"{where}, pickled", pickle.dumps(part))
            except Exception as refused:  # noqa: BLE001  # most can't be pickled, and must say so blandly
                self.look(f"{where}, refusing to be pickled", f"{refused!r}")


def _locals(frame: FrameType) -> str:
    shown = []
    for name, value in frame.f_locals.items():
        with contextlib.suppress(Exception):  # half made; nobody could print it either
            shown.append(f"{name}={value!r} {value!s}")
    return "\n".join(shown)


def _chain(error: BaseException) -> Iterator[BaseException]:
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        pending += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            pending += one.exceptions


def _parts(
    what: object, depth: int = 0, seen: set[int] | None = None
) -> Iterator[tuple[int, object]]:
    """An object, and its attributes and elements as far as they are the library's own."""
    seen = set() if seen is None else seen
    if id(what) in seen or depth > 8:
        return
    seen.add(id(what))
    yield depth, what
    if isinstance(what, dict):
        inner: list[object] = [*what.keys(), *what.values()]
    elif isinstance(what, list | tuple | set | frozenset):
        inner = list(what)
    elif type(what).__module__.split(".")[0] in ("secret_ledger", "secret_ledger_projections"):
        names = [n for kind in type(what).__mro__ for n in getattr(kind, "__slots__", ())]
        inner = [getattr(what, name, None) for name in names]
        inner += list(getattr(what, "__dict__", {}).values())
    else:
        inner = [getattr(what, "__dict__", None)] if depth < 2 else []
    for part in inner:
        if callable(part) and type(part).__name__ in ("function", "method"):
            yield depth + 1, part  # shown, not called: a Secret's bytes lie behind one
        else:
            yield from _parts(part, depth + 1, seen)


class LogCapture(logging.Handler):
    """Every record of every logger, with its arguments and its traceback."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(logging.DEBUG)
        self._watch = watch
        self.loggers: set[str] = set()
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    @contextlib.contextmanager
    def listening(self, *names: str) -> Iterator[None]:
        """Hear these loggers at DEBUG for a while."""
        before = {name: logging.getLogger(name).level for name in names}
        root = logging.getLogger()
        heard = self in root.handlers
        root.addHandler(self)
        try:
            for name in names:
                logging.getLogger(name).setLevel(logging.DEBUG)
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
            if not heard:
                root.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.loggers.add(record.name)
        self._watch.look(f"a log record of {record.name}", f"{self.format(record)} {record.args!r}")
        if record.exc_info and record.exc_info[1]:
            self._watch.look_at_error(record.exc_info[1])
