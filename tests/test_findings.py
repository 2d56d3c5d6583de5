"""What a verification says of many findings, and how far it is."""

from __future__ import annotations

import pytest

from inside import MAX_FINDINGS, Finding, Progress, Tally
from ledgers import NEW, OLD, opened
from secret_ledger import MissingKey, TamperedEvent


def test_findings_that_are_left_out_are_counted_by_what_they_are() -> None:
    tally = Tally()
    tally.add_all(Finding("missing_key", "m", stream="a", key_id="k") for _ in range(5000))
    with pytest.raises(MissingKey, match=r"^5,000 versions of secrets are under k, which"):
        tally.report("full", 0).raise_if_not_ok()
    tally.add(Finding("tampered", "why", stream="b", version=1, position=7))
    report = tally.report("full", 0)
    assert (report.omitted, report.omitted_by_kind) == (4000, {"missing_key": 4000})
    with pytest.raises(TamperedEvent) as caught:
        report.raise_if_not_ok()
    assert caught.value.message == (
        "1 damaged: b version 1 at position 7: why; 5,000 versions of secrets are under keys that"
        " are not held"
    )
    assert caught.value.details["findings"] == 1


def test_differences_of_a_projection_are_counted_without_missing_keys() -> None:
    tally = Tally()
    tally.add_all(Finding("missing_key", "m", stream="a") for _ in range(MAX_FINDINGS + 5))
    tally.add_all(Finding("projection", "p") for _ in range(MAX_FINDINGS + 3))
    with pytest.raises(TamperedEvent, match=r"^1,003 values of a projection") as caught:
        tally.report("full", 0).raise_if_not_ok()
    assert caught.value.details["findings"] == 1003


async def test_a_verification_tells_its_progress_up_to_its_end(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        for start in range(0, 1200, 300):
            await ledger.put_many({f"s/{n}": "old" for n in range(start, start + 300)})
        await ledger.rotate(NEW)
        await ledger.migrate()
        end = ledger.position
        told: list[Progress] = []
        assert (await ledger.verify("latest", on_progress=told.append)).ok
        assert {one.total for one in told} == {1200}
        assert told[-1].done == 1200
        whole: list[Progress] = []
        assert (await ledger.verify("full", on_progress=whole.append)).ok
        # The generation that was closed ends where the one in use was opened.
        assert {one.total for one in whole} == {2 * end}
        assert whole[-1].done == 2 * end
        for steps in (told, whole):
            assert [one.done for one in steps] == sorted(one.done for one in steps)
