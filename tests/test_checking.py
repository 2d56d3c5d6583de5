"""A checked page, and the part of it that lies between two positions."""

from __future__ import annotations

import pytest

from inside import NO_HASH, CheckedPage, CheckedRow, Event, EventType, Values

POSITIONS = range(11, 16)


def row(position: int) -> CheckedRow:
    event = Event(
        0, position, "a", position, EventType.WRITTEN, "k", bytes(32), 0, "{}", NO_HASH, b"", b""
    )  # fmt: skip
    return CheckedRow(event, None, None, None)


@pytest.mark.parametrize(
    ("after", "last", "positions"),
    [(10, 15, [11, 12, 13, 14, 15]), (10, 12, [11, 12]), (12, 14, [13, 14]), (14, 15, [15])],
)
def test_a_part_of_a_page_has_the_rows_and_their_data(
    after: int, last: int, positions: list[int]
) -> None:
    page = CheckedPage([row(n) for n in POSITIONS], Values(str(n).encode() for n in POSITIONS), ())
    part = page.part(after, last)
    assert [r.event.position for r in part.rows] == positions
    assert [part.values.at(n) for n in range(len(part.values))] == [
        str(n).encode() for n in positions
    ]
