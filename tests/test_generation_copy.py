"""What a migration reads back of a page that it has just written, beside the originals."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from inside import (
    NO_HASH,
    CheckedPage,
    CheckedRow,
    Event,
    EventType,
    Values,
    purge,
    read_back,
    seal_event,
)

LEDGER = bytes(16)
OLD, NEW = AESGCM(os.urandom(32)), AESGCM(os.urandom(32))
VALUES = [b"one", b"two", b"three"]


def sealed(cipher: AESGCM, generation: int, number: int, value: bytes, text: str = "{}") -> Event:
    event = Event(
        generation, 3 + number, f"s/{number}", 1, EventType.WRITTEN, "k", bytes(32), 5, text,
        NO_HASH, b"", b"",
    )  # fmt: skip
    return seal_event(cipher, LEDGER, event, value)


def originals() -> CheckedPage:
    rows = [CheckedRow(sealed(OLD, 0, n, v), None, None, None) for n, v in enumerate(VALUES)]
    return CheckedPage(rows, Values(VALUES), ())


def found(written: list[Event], stored: list[Event]) -> list[tuple[int | None, str]]:
    findings = read_back(LEDGER, NEW, originals(), written, stored)
    return [(finding.position, finding.reason) for finding in findings]


def copies() -> list[Event]:
    return [sealed(NEW, 1, n, v) for n, v in enumerate(VALUES)]


def test_a_page_that_is_as_its_originals_is_proven() -> None:
    written = copies()
    assert found(written, [*written]) == []


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (sealed(NEW, 1, 1, b"other"), "its data differs from the original's"),
        (sealed(NEW, 1, 1, b"two", '{"actor":"x"}'), "its metadata differs from the original's"),
        (
            (lambda e: e._replace(sealed=purge(e.sealed)))(sealed(NEW, 1, 1, b"two")),
            "its data differs from the original's",
        ),
    ],
    ids=["other data", "other metadata", "no data"],
)
def test_what_was_written_wrong_is_found_though_it_is_stored_as_it_was_written(
    wrong: Event, reason: str
) -> None:
    written = [*copies()[:1], wrong, *copies()[2:]]
    assert found(written, written) == [(4, reason)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda page: page[:2], [(5, "it is missing from the new generation")]),
        (
            lambda page: [*page[:2], page[2]._replace(prev_hash=bytes([1] * 32))],
            [(5, "it differs from the event that was written")],
        ),
        (
            lambda page: [*page, page[2]._replace(position=6)],
            [(6, "it differs from the event that was written")],
        ),
    ],
    ids=["missing", "another chain", "one more"],
)
def test_what_is_not_stored_as_it_was_written_is_found(
    change: Callable[[list[Event]], list[Event]], expected: list[tuple[int, str]]
) -> None:
    written = copies()
    assert found(written, change(written)) == expected


def test_a_page_has_a_value_for_each_row() -> None:
    with pytest.raises(ValueError, match="2 values for 3 rows"):
        CheckedPage(originals().rows, Values(VALUES[:2]), ())
