"""One command, from its words to its exit code.

Every command ends here: with its result, or with `error:`, `hint:` and an exit code. Only --debug
shows a traceback. The traceback leaves out locals and the messages of foreign errors, because
these may quote a value.
"""

from __future__ import annotations

import inspect
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cyclopts import CycloptsError

from secret_ledger.cli.app import make_app
from secret_ledger.cli.output import Output, to_stderr, visible
from secret_ledger.cli.streams import Stdout, streams
from secret_ledger.cli.usage import UsageError, explain
from secret_ledger.errors import LedgerError

__all__ = ["run"]

INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
"""The exit code that a shell reports if a closed pipe has ended a program."""

_FLAGS: Final = ("--json", "--debug")
_OPTIONS: Final = ("--url", "--schema")
_SAID_BY_VERBS: Final = (
    "ledger_created", "ledger_opened_with_warning", "ledger_refused", "ledger_node_differs",
    "key_rotated",
)  # fmt: skip


def run(words: Sequence[str]) -> int:
    """Carry out a command line, and return its exit code.

    Raises no error. If SIGTERM ends `nodes --watch` on a terminal, raises SystemExit.
    """
    words = _verb_first(words)
    options = words[: words.index("--")] if "--" in words else words
    output = Output(as_json="--json" in options)
    with streams() as stdout:
        return _Command(output, stdout, debug="--debug" in options).run(words)


@dataclass(frozen=True, slots=True)
class _Command:
    output: Output
    stdout: Stdout
    debug: bool

    def run(self, words: Sequence[str]) -> int:
        try:
            with _library_log(self.output):
                _carry_out(words)
            sys.stdout.flush()
        except KeyboardInterrupt:
            return INTERRUPTED
        except (LedgerError, UsageError) as error:
            return self._failed(error)
        except BrokenPipeError:
            return BROKEN_PIPE
        except Exception as error:  # noqa: BLE001  # the last resort: reported with its exit code
            lost = _LostOutput(error) if error is self.stdout.problem else None
            return self._failed(lost or _Internal(error))
        return 0

    def _failed(self, error: LedgerError | UsageError) -> int:
        if not isinstance(error, _LostOutput):
            try:
                sys.stdout.flush()
            except BrokenPipeError:
                pass  # nobody wants to read it
            except OSError as problem:
                self.output.note(_LostOutput(problem).message)
        if self.debug and (isinstance(error, LedgerError | _Internal)):
            _show_origin(error.error if isinstance(error, _Internal) else error)
        self.output.error(error)
        return error.exit_code


def _carry_out(words: Sequence[str]) -> None:
    app = make_app()
    try:
        command, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        refused = explain(error, app)
    else:
        if getattr(command, "__name__", "") != "help_print" or {"--help", "-h"} & set(words):
            result = command(*bound.args, **bound.kwargs)
            if inspect.iscoroutine(result):
                import asyncio  # --help works without it

                asyncio.run(result)
            return
        refused = UsageError("no verb is given", hint=" ".join(["secret-ledger", *words, "--help"]))
    # Outside the handler: else the error's context, cyclopts' error, would hold the words.
    raise refused


def _verb_first(words: Sequence[str]) -> list[str]:
    """Global options may also stand before the verb: `secret-ledger --json list`."""
    leading: list[str] = []
    rest = list(words)
    while rest:
        name, given, _ = rest[0].partition("=")
        if rest[0] in _FLAGS or (name in _OPTIONS and given):
            leading.append(rest.pop(0))
        elif name in _OPTIONS and len(rest) > 1:
            leading += [rest.pop(0), rest.pop(0)]
        else:
            break
    if not rest:
        return leading
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *leading, *rest[end:]]


class _Internal(UsageError):
    code, exit_code = "internal", 1

    def __init__(self, error: Exception) -> None:
        # Only the type: the message may quote anything.
        super().__init__(
            f"internal: {type(error).__name__}",
            hint="run it again with --debug to see where, and report it",
        )
        self.error = error


class _LostOutput(UsageError):
    """stdout takes no more bytes: its disk is full, or stdout is closed."""

    code, exit_code = "output_lost", 1

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"stdout can't be written: {error.strerror or type(error).__name__}; the command's"
            " output is lost",
            hint="a command writes to the ledger before it prints: before you run it again, look"
            " with `secret-ledger history` or `list`",
        )


def _show_origin(error: BaseException) -> None:
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    for each in reversed(chain):
        said = f": {visible(each.message)}" if isinstance(each, LedgerError) else ""
        name = f"{type(each).__module__}.{type(each).__qualname__}"
        to_stderr("".join(traceback.format_tb(each.__traceback__)) + name + said)


@contextmanager
def _library_log(output: Output) -> Iterator[None]:
    """Shows each warning of the library once, and no log lines of other libraries."""
    ours, others = _Warnings(output), logging.NullHandler()
    logging.getLogger("secret_ledger").addHandler(ours)
    # Without any handler, Python would print other libraries' errors, tracebacks included.
    logging.getLogger().addHandler(others)
    try:
        yield
    finally:
        logging.getLogger("secret_ledger").removeHandler(ours)
        logging.getLogger().removeHandler(others)


class _Warnings(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip()
        if not text.startswith(_SAID_BY_VERBS) and text not in self._said:
            self._said.add(text)
            self._output.warning(text)
