"""The known answers of the facts: made without the library, and read by it as they say."""
# ruff: noqa: S608  # our own names, and numbers of the vector, go into the SQL

from __future__ import annotations

import json
from typing import Any

import pytest

import facts_vectors
from attacker import attacking
from inside import encode_metadata
from ledgers import opened
from secret_ledger import Key, LedgerError, SecretLedger

VECTOR: dict[str, Any] = json.loads(facts_vectors.FILE.read_text("utf-8"))
KEYS = {name: Key.from_bytes(bytes.fromhex(root), name) for name, root in VECTOR["roots"].items()}


def test_the_vector_is_what_its_maker_makes() -> None:
    assert facts_vectors.made() == VECTOR


@pytest.mark.parametrize("generation", [0, 1])
async def test_a_ledger_of_the_vector_gives_the_answers_that_it_states(
    database_url: str, generation: int
) -> None:
    await _lay(database_url, generation)
    keys = [KEYS[name] for name in VECTOR["held"]]
    async with opened(database_url, *keys, verify="full", projections=()) as ledger:
        for answer in VECTOR["answers"]:
            asked = {"version": answer["version"]} if "version" in answer else {}
            assert await _said(ledger, answer["name"], **asked) == {
                key: answer[key] for key in ("value", "refused") if key in answer
            }, answer


async def _said(ledger: SecretLedger, name: str, **asked: Any) -> dict[str, str]:
    try:
        return {"value": (await ledger.get(name, **asked)).value.reveal_text()}
    except LedgerError as error:
        return {"refused": error.code}


def test_metadata_is_spelt_as_in_the_vector() -> None:
    for row in (row for rows in VECTOR["generations"] for row in rows):
        said = json.loads(row["metadata"])
        assert (
            encode_metadata(reason=said.get("reason"), ledger=said.get("ledger"))
            == (row["metadata"])
        )


async def _lay(url: str, generation: int) -> None:
    """The vector's rows, up to the end of one generation, in the place of a new ledger's."""
    async with opened(url, KEYS["k-a"], projections=()):
        pass
    generations = VECTOR["generations"][: generation + 1]
    if generation == 0:
        generations = [[r for r in generations[0] if r["event_type"] != "generation.closed"]]
    async with attacking(url) as attacker:
        for table in ("secret_event", "ledger_key", "ledger_head", "secret_current"):
            await attacker.sql(f"DELETE FROM {table}")
        ledger_id = bytes.fromhex(VECTOR["ledger_id"])
        await attacker.sql("UPDATE ledger_meta SET ledger_id = $1", ledger_id)
        for name in KEYS:
            await attacker.sql(
                "INSERT INTO ledger_key (key_id, key_fingerprint) VALUES ($1, $2)",
                name, facts_vectors.fingerprint(name),
            )  # fmt: skip
        for number, rows in enumerate(generations):
            last, state = rows[-1], "active" if number == generation else "closed"
            await attacker.sql(
                "INSERT INTO ledger_head (generation, position, recorded_at, key_epoch, state)"
                f" VALUES ({number}, {last['position']}, {last['recorded_at']}, 3, '{state}')"
            )
            for row in rows:
                cells = (
                    *facts_vectors.columns(row),
                    bytes.fromhex(row["sealed"]),
                    bytes.fromhex(row["event_hash"]),
                )
                marks = ", ".join(f"${n}" for n in range(1, len(cells) + 1))
                await attacker.sql(
                    "INSERT INTO secret_event (generation, position, stream, version, event_type,"
                    " key_id, key_fingerprint, recorded_at, metadata, prev_hash, sealed,"
                    f" event_hash) VALUES ({marks})",
                    *cells,
                )
