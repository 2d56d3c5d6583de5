"""A Secret gives its bytes to `reveal` and `reveal_text`, and to nothing else."""

from __future__ import annotations

import copy
import dataclasses
import gc
import io
import json
import logging
import pickle
import pprint
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import rich
import rich.console
import structlog
from rich.traceback import Traceback

from inside import InvalidValue, Secret, Values
from leaks import shown_by

CANARY = "canary-7f3a"


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    value: Secret
    name: str = "n"


@pytest.mark.parametrize(
    "value",
    [
        "h\u00e9 \u2713",
        "h\u00e9 \u2713".encode(),
        bytearray("h\u00e9 \u2713".encode()),
        memoryview("h\u00e9 \u2713".encode()),
        Secret("h\u00e9 \u2713"),
    ],
    ids=["str", "bytes", "bytearray", "memoryview", "Secret"],
)
def test_it_takes_text_bytes_and_secrets_and_reveals_them(value: Any) -> None:
    assert Secret(value).reveal() == "h\u00e9 \u2713".encode()
    assert type(Secret(value).reveal()) is bytes
    assert Secret(value).reveal_text() == "h\u00e9 \u2713"


def test_it_is_a_copy_that_later_changes_of_the_buffer_do_not_reach() -> None:
    buffer = bytearray(b"before")
    secret = Secret(buffer)
    buffer[:] = b"after!"
    assert secret.reveal() == b"before"


@pytest.mark.parametrize(
    "way",
    [
        repr,
        str,
        format,
        lambda s: f"{s!r} {s!s} {s!a} {s:>40} {s:x}",
        lambda s: "%s %r" % (s, s),  # noqa: UP031 - loggers format so
        lambda s: "{0} {0.reveal} {0._open}".format(s),  # noqa: UP032 - attributes of a template
        pprint.pformat,
        lambda s: pprint.pformat({"k": [s, Holder(s)]}),
        lambda s: repr(dataclasses.asdict(Holder(s))),
        lambda s: repr([getattr(s, name) for name in dir(s) if not name.startswith("__")]),
        lambda s: json.dumps({"k": s}, default=str),
        lambda s: repr(gc.get_referents(s)),
        lambda s: repr(s._open.__closure__),
    ],
)
def test_no_way_of_printing_shows_the_value(way: Callable[[Secret], str]) -> None:
    assert CANARY not in way(Secret(CANARY))


def test_what_it_prints_is_one_constant_that_tells_no_length() -> None:
    assert repr(Secret("")) == str(Secret("a" * 999)) == f"{Secret('x'):>50}" == "Secret(...)"
    assert sys.getsizeof(Secret("")) == sys.getsizeof(Secret("a" * 999))


def test_rich_and_structlog_show_no_value_in_attributes_or_in_tracebacks_with_locals() -> None:
    out = io.StringIO()
    console = rich.console.Console(file=out, width=200)
    rich.inspect(Secret(CANARY), console=console, all=True)
    rich.inspect(Holder(Secret(CANARY)), console=console, all=True)

    def fail(secret: Secret, holder: Holder) -> None:
        raise RuntimeError("boom")

    try:
        fail(Secret("canary-" + "7f3a"), Holder(Secret("canary-" + "7f3a")))
    except RuntimeError as error:
        trace = Traceback.from_exception(RuntimeError, error, error.__traceback__, show_locals=True)
        console.print(trace)
        stdlib = traceback.TracebackException.from_exception(error, capture_locals=True)
        out.write("".join(stdlib.format()))
        as_dict = structlog.tracebacks.ExceptionDictTransformer(show_locals=True)
        out.write(repr(as_dict((RuntimeError, error, error.__traceback__))))
    assert "secret" in out.getvalue()
    assert CANARY not in out.getvalue()


def test_a_log_record_and_a_structlog_json_line_show_no_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.getLogger("host").warning("%s %r", Secret(CANARY), {"v": Secret(CANARY)})
    line = structlog.processors.JSONRenderer()(None, "info", {"v": Secret(CANARY)})
    assert "Secret(...)" in caplog.text
    assert CANARY not in caplog.text + str(line)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_refuses_to_be_pickled_alone_or_inside_another_object(protocol: int) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(CANARY), protocol)
    with pytest.raises(TypeError):
        pickle.dumps(Holder(Secret(CANARY)), protocol)


@pytest.mark.parametrize(
    "way",
    [
        lambda s: json.dumps(s),
        lambda s: json.dumps({"v": s}, default=vars),
        vars,
        bytes,
        len,
        iter,
        memoryview,
        hash,
        int,
        lambda s: s[0],
        lambda s: s + b"",
        lambda s: b"" in s,
        lambda s: s.__reduce__(),
        lambda s: s.__getstate__(),
        lambda s: io.BytesIO().write(s),
    ],
)
def test_what_could_take_the_value_out_is_a_type_error(way: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError) as caught:
        way(Secret(CANARY))
    assert CANARY not in str(caught.value)


def test_it_has_no_dict_and_can_not_be_changed() -> None:
    secret: Any = Secret(CANARY)
    assert not hasattr(secret, "__dict__")
    with pytest.raises(AttributeError):
        secret._open = lambda: b"other"
    with pytest.raises(AttributeError):
        secret.note = 1
    with pytest.raises(AttributeError):
        del secret._open
    assert secret.reveal_text() == CANARY


def test_copies_are_the_object_itself_so_dataclasses_that_hold_one_can_be_copied() -> None:
    secret = Secret(CANARY)
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"v": secret})["v"] is secret
    assert dataclasses.asdict(Holder(secret)) == {"value": secret, "name": "n"}
    assert dataclasses.replace(Holder(secret), name="m").value is secret


def test_it_equals_a_secret_of_the_same_bytes_and_never_raw_bytes() -> None:
    assert Secret("a") == Secret(b"a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != Secret("aa")
    assert Secret(CANARY).__eq__(CANARY) is NotImplemented
    assert Secret(CANARY) != CANARY.encode()


def test_a_lone_surrogate_is_an_invalid_value_and_the_error_holds_no_text() -> None:
    with pytest.raises(InvalidValue, match="surrogate") as caught:
        Secret(CANARY + "\ud800")
    assert CANARY not in shown_by(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("value", [None, 7, 1.5, [CANARY], {CANARY: 1}, object()])
def test_another_type_is_an_invalid_value_and_the_error_names_only_the_type(value: Any) -> None:
    with pytest.raises(InvalidValue, match=type(value).__name__) as caught:
        Secret(value)
    assert CANARY not in shown_by(caught.value)


def test_a_released_memoryview_is_an_invalid_value() -> None:
    view = memoryview(b"x")
    view.release()
    with pytest.raises(InvalidValue):
        Secret(view)


class _Unwilling(bytes):
    def __bytes__(self) -> bytes:
        raise RuntimeError("not today")


def test_bytes_that_fail_to_be_read_are_an_invalid_value_and_not_shown() -> None:
    with pytest.raises(InvalidValue) as caught:
        Secret(_Unwilling(CANARY.encode()))
    assert CANARY not in shown_by(caught.value)
    assert caught.value.__context__ is None


def test_bytes_that_are_no_text_are_an_invalid_value_to_reveal_text_without_the_bytes() -> None:
    with pytest.raises(InvalidValue, match="UTF-8") as caught:
        Secret(CANARY.encode() + b"\xff").reveal_text()
    assert CANARY not in shown_by(caught.value)
    assert caught.value.__context__ is None


def test_the_values_of_a_page_show_as_little() -> None:
    values = Values([CANARY.encode(), None])
    values.add(b"more " + CANARY.encode())
    assert [values.at(n) for n in range(len(values))] == [
        CANARY.encode(), None, b"more " + CANARY.encode(),
    ]  # fmt: skip
    assert values.part(slice(1, 3)).at(1) == values.at(2)
    out = io.StringIO()
    rich.inspect(values, console=rich.console.Console(file=out, width=200), all=True)
    named = [getattr(values, name) for name in dir(values) if not name.startswith("__")]
    shown = [values, named, gc.get_referents(values), {"k": [values, Holder(Secret(CANARY))]}]
    shown += [f"{values} {values!a}", pprint.pformat(values), values._all.__closure__]
    assert CANARY not in repr(shown) + out.getvalue()
    assert repr(values) == "Values(3)"
    ways: list[Callable[[Any], Any]] = [pickle.dumps, copy.deepcopy, copy.copy, json.dumps, iter]
    for way in ways:
        with pytest.raises(TypeError):
            way(values)
