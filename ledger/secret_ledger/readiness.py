"""Liveness and readiness for servers of any framework, and as a raw ASGI application.

*Live* means that this process answers. It asks no database: if a database is out of reach, a
restart does not mend it. *Ready* means that this node can do its work: `SecretLedger.health`,
bounded in time. The answer is kept for a moment, so that the probes of many kubelets cost one look.
A body holds no secret. It names keys by id and fingerprint, the database by its address, and other
nodes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from secret_ledger.inputs import seconds

if TYPE_CHECKING:
    from secret_ledger.ledger import SecretLedger
    from secret_ledger.nodes.health import Health

__all__ = ["Probe", "liveness", "probes", "readiness"]

WITHIN: Final = 2.0
"""Seconds within which the database must answer. A prober's own timeout should be longer."""
MAX_AGE: Final = 1.0
"""Seconds for which an answer is given again."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The answer to a probe, in the parts of an HTTP response."""

    status: int
    """200, or 503 if the node must get no requests. 404 and 405 for requests of other kinds."""
    body: bytes
    """One JSON object, without any secret."""
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class _Kept:
    health: Health
    at: float


_kept: Final[WeakKeyDictionary[SecretLedger, _Kept]] = WeakKeyDictionary()


async def liveness(ledger: SecretLedger) -> Probe:
    """Whether this process answers: always 200, without asking the database."""
    return _probe(200, {"live": True, "ledger_id": ledger.ledger_id})


async def readiness(
    ledger: SecretLedger, *, within: float = WITHIN, max_age: float = MAX_AGE
) -> Probe:
    """Whether this node can do its work, and why not: 200 (ready, degraded) or 503.

    The body is `SecretLedger.health` as JSON, and `checked_seconds_ago`.

    within: seconds; if the database has not answered within them, that is a 503, not a hanging
        probe.
    max_age: seconds for which an answer is given again, without asking the database.

    Raises InvalidValue if one of them is no number of seconds, and nothing else.
    """
    seconds(max_age, "max_age")
    seconds(within, "within")
    kept = _kept.get(ledger)
    if kept is None or time.monotonic() - kept.at >= max_age:
        health = await ledger.health(within=within)
        kept = _kept[ledger] = _Kept(health, time.monotonic())
    age = time.monotonic() - kept.at
    known = {**asdict(kept.health), "checked_seconds_ago": age}
    known["verified_seconds_ago"] += age
    return _probe(200 if kept.health.ready else 503, known)


def _probe(status: int, known: dict[str, Any]) -> Probe:
    return Probe(status, json.dumps(known).encode() + b"\n")


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def probes(ledger: SecretLedger, *, within: float = WITHIN, max_age: float = MAX_AGE) -> App:
    """An ASGI application that answers GET and HEAD of /livez and /readyz.

    Mount it anywhere, or serve it on a port of its own. `within`, `max_age`: seconds, as for
    `readiness`.
    """

    async def answer(path: str) -> Probe:
        match path:
            case "/livez":
                return await liveness(ledger)
            case "/readyz":
                return await readiness(ledger, within=within, max_age=max_age)
        return _probe(404, {"error": "there are /livez and /readyz"})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        if scope["type"] != "http":
            return
        if scope["method"] in ("GET", "HEAD"):
            # If it is mounted, the path begins with the mount's path. It may end with a slash.
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            probe = await answer(path.removesuffix("/"))
        else:
            probe = _probe(405, {"error": "a probe is a GET"})
        await _respond(send, probe, whole=scope["method"] != "HEAD")

    return app


async def _lifespan(receive: Receive, send: Send) -> None:
    """The host opens and closes the ledger, so that nothing starts or stops here."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _respond(send: Send, probe: Probe, *, whole: bool) -> None:
    headers = [
        (b"content-type", probe.content_type.encode()),
        (b"content-length", str(len(probe.body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if probe.status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": probe.status, "headers": headers})
    await send({"type": "http.response.body", "body": probe.body if whole else b""})
