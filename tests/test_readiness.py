"""What a prober is told: liveness, readiness, and the ASGI application that answers both."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hanging import hanging, waiting_for_locks
from inside import Probe, liveness, probes, readiness
from ledgers import NEW, OLD, opened
from log_builder import building
from secret_ledger import SecretLedger
from waiting import until


def body(probe: Probe) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(probe.body)
    return found


async def test_a_node_that_can_work_is_ready_and_says_what_it_stands_on(database_url: str) -> None:
    async with opened(database_url, NEW, node="web-0") as first:
        await first.rotate(OLD)
    async with opened(database_url, NEW, OLD, node="web-1") as ledger:
        put = await ledger.put("a", "1")
        probe = await readiness(ledger)
        assert (probe.status, probe.content_type) == (200, "application/json")
        known = body(probe)
        assert (known["ready"], known["state"], known["reasons"]) == (True, "ready", [])
        assert (known["node"], known["ledger_id"]) == ("web-1", ledger.ledger_id)
        assert known["active_fingerprint"] == put.key_fingerprint.hex()
        assert (known["projection_lag"], known["position"]) == (0, put.position)
        assert known["verified_level"] == "latest"
        assert known["verified_seconds_ago"] >= 0
        assert known["round_trip_seconds"] > 0
        assert known["checked_seconds_ago"] >= 0


async def test_a_pending_key_is_named(database_url: str) -> None:
    async with opened(database_url, OLD):
        pass
    async with opened(database_url, NEW, OLD) as ledger:
        fingerprint = NEW.for_ledger(bytes.fromhex(ledger.ledger_id)).fingerprint
        assert body(await readiness(ledger))["pending_fingerprint"] == fingerprint.hex()


async def test_a_node_that_was_fenced_is_a_503_that_says_why(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD) as ledger:
        await log.rotate(NEW)
        probe = await readiness(ledger)
        assert probe.status == 503
        assert (body(probe)["ready"], body(probe)["state"]) == (False, "unready")
        assert body(probe)["reasons"][0].startswith("stale_key: ")


async def test_what_only_degrades_a_node_keeps_it_ready(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD) as ledger:
        await log.execute("ALTER TABLE {s}ledger_node RENAME TO gone")
        await ledger._session.announce()
        probe = await readiness(ledger)
        assert (probe.status, body(probe)["state"]) == (200, "degraded")
        assert body(probe)["reasons"][0].startswith("heartbeat: ")


async def test_an_answer_is_given_again_until_it_is_too_old(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD) as ledger:
        assert (await readiness(ledger)).status == 200
        await log.rotate(NEW)
        assert (await readiness(ledger, max_age=3600)).status == 200
        assert (await readiness(ledger, max_age=0)).status == 503
        assert (await readiness(ledger, max_age=3600)).status == 503


async def test_the_answer_of_one_ledger_is_not_that_of_another(
    sqlite_url: str, postgres_url: str
) -> None:
    async with opened(sqlite_url, OLD) as one, opened(postgres_url, OLD) as other:
        ids = [body(await readiness(led, max_age=3600))["ledger_id"] for led in (one, other, one)]
        assert ids == [one.ledger_id, other.ledger_id, one.ledger_id]


async def test_a_database_that_hangs_is_a_503_and_not_a_hanging_probe(database_url: str) -> None:
    async with opened(database_url, OLD, node="web-1") as ledger:
        put = await ledger.put("a", "1")
        async with hanging(ledger, database_url):
            async with asyncio.timeout(30):
                probe = await readiness(ledger, within=0.1, max_age=0)
            assert probe.status == 503
            known = body(probe)
            assert known["reasons"] == ["the database did not answer within 0.1 s"]
            assert (known["node"], known["position"]) == ("web-1", put.position)
            assert known["active_fingerprint"] == put.key_fingerprint.hex()
            assert known["projection_lag"] is None
        assert (await readiness(ledger, max_age=0)).status == 200


async def test_a_database_that_hangs_is_asked_once_however_often_it_is_probed(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, OLD) as ledger, hanging(ledger, postgres_url):
        for _ in range(3):
            await asyncio.gather(*(readiness(ledger, within=0.05, max_age=0) for _ in range(5)))
        assert await waiting_for_locks(postgres_url) == 1


async def test_a_ledger_closes_while_a_probe_waits_for_its_database(postgres_url: str) -> None:
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(opened(postgres_url, OLD))
        async with hanging(ledger, postgres_url):
            probing = asyncio.create_task(readiness(ledger, within=3600))
            await until(lambda: _one_waits(postgres_url))
            await stack.aclose()
            probe = await probing
    assert (probe.status, body(probe)["reasons"]) == (503, ["the ledger was closed"])


async def _one_waits(url: str) -> bool:
    return await waiting_for_locks(url) == 1


async def test_liveness_asks_no_database(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger, hanging(ledger, database_url):
        async with asyncio.timeout(30):
            probe = await liveness(ledger)
        assert (probe.status, body(probe)["live"]) == (200, True)
    assert (await liveness(ledger)).status == 200


async def test_a_closed_ledger_is_not_ready(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        pass
    probe = await readiness(ledger)
    assert probe.status == 503
    assert "closed" in body(probe)["reasons"][0]


# --- the ASGI application ------------------------------------------------------------


async def ask(
    ledger: SecretLedger, path: str, method: str = "GET", **scope: Any
) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    whole = {"type": "http", "method": method, "path": path, "headers": [], **scope}
    await probes(ledger, max_age=0)(whole, receive, send)
    start, end = sent
    assert (start["type"], end["type"]) == ("http.response.start", "http.response.body")
    return start["status"], dict(start["headers"]), end["body"]


async def test_the_application_answers_livez_and_readyz(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        for path, field in (("/livez", "live"), ("/readyz", "ready")):
            status, headers, content = await ask(ledger, path)
            assert (status, json.loads(content)[field]) == (200, True)
            assert headers[b"content-type"] == b"application/json"
            assert headers[b"content-length"] == str(len(content)).encode()
            assert headers[b"cache-control"] == b"no-store"
            assert (await ask(ledger, f"/probes{path}", root_path="/probes"))[0] == 200
            assert (await ask(ledger, path, root_path=""))[0] == 200
            # As Litestar's mount asks.
            assert (await ask(ledger, f"{path}/", root_path=""))[0] == 200
            assert (await ask(ledger, f"/probes{path}/", root_path="/probes"))[0] == 200
    assert (await ask(ledger, "/livez"))[0] == 200
    assert (await ask(ledger, "/readyz"))[0] == 503


async def test_the_application_refuses_what_is_no_probe(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        for path in ("/", "/readyz//", "/x/readyz", ""):
            assert (await ask(ledger, path))[0] == 404
        status, headers, _ = await ask(ledger, "/readyz", "POST")
        assert (status, headers[b"allow"]) == (405, b"GET, HEAD")
        status, headers, content = await ask(ledger, "/livez", "HEAD")
        assert (status, content) == (200, b"")
        assert int(headers[b"content-length"]) > 0


async def test_the_application_can_be_served_on_its_own(sqlite_url: str) -> None:
    """A server speaks the lifespan protocol first, and may be asked for a websocket."""
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async with opened(sqlite_url, OLD) as ledger:
        await probes(ledger)({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        await probes(ledger)({"type": "websocket", "path": "/readyz"}, receive, send)
        assert sent[2:] == ["websocket.close"]
        assert (await ledger.health()).ready


@pytest.mark.parametrize("within", [None, 5.0])
async def test_health_is_the_same_with_a_bound_and_without(
    database_url: str, within: float | None
) -> None:
    async with opened(database_url, OLD) as ledger:
        await ledger.put("a", "1")
        health = await ledger.health(within=within)
        assert (health.ready, health.position, health.projection_lag) == (
            True, ledger.position, 0,
        )  # fmt: skip
