"""Any sequence of operations leaves what a plain in-memory model says.

Two nodes work on one ledger, in turns that are drawn: each writes, reads, rotates, migrates
and restarts, and so each has to follow what the other did in between. Every step must end as
the model says, down to the exact kind of a refusal; and at the end every version is read back
in every way that there is, by both nodes, by one that has just booted, and from the bare rows.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doomed import Enough
from independent_fold import CONTROL, fold_log, read_rows
from inside import Level, emptying, from_microseconds, reads
from ledgers import emptied
from secret_ledger import Key, Keyring, LedgerError, SecretInfo, SecretLedger
from secret_model import Model, Ring, Version, shown

T = TypeVar("T")
M = TypeVar("M")


class Step(NamedTuple):
    """A call of one of the methods of `Fleet`."""

    name: str
    facts: dict[str, Any]

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.facts.items())})"


NODE = st.sampled_from(("one", "two"))
NAME = st.sampled_from(("a", "a/b", "b", "é"))
MORTAL = st.sampled_from(("b", "é"))
"""Those that are destroyed: the others have a history to look back at."""
ACTOR = st.sampled_from((None, "alice", "bob"))
BEHIND = st.sampled_from((*[None] * 8, 0, 0, 0, 0, 1, -1))
"""What a caller expects: anything, or a version so far behind the last that is no rekey."""
VERSION = st.sampled_from((None, None, 1, 2, 3, 4))
SIZE = st.sampled_from((0, 1, 2000))
NOTED = FORCE = st.booleans()

STEPS: Sequence[tuple[int, str, dict[str, st.SearchStrategy[Any]]]] = (
    (6, "put", {"name": NAME, "size": SIZE, "behind": BEHIND, "actor": ACTOR, "noted": NOTED}),
    (2, "put_many", {"names": st.lists(NAME, min_size=1, max_size=3, unique=True),
                     "behind": BEHIND, "actor": ACTOR}),
    (3, "delete", {"name": NAME, "behind": BEHIND, "actor": ACTOR, "noted": NOTED}),
    (2, "restore", {"name": NAME, "version": VERSION, "behind": BEHIND, "actor": ACTOR,
                    "noted": NOTED}),
    (4, "bring_back", {"name": NAME, "version": VERSION, "actor": ACTOR, "noted": NOTED}),
    (2, "destroy", {"name": MORTAL, "actor": ACTOR}),
    (1, "look", {}),
    (1, "reopen", {"frugal": st.booleans(), "level": st.sampled_from(("latest", "full"))}),
    (1, "deploy", {}),
    (2, "rotate", {"given": st.booleans(), "force": FORCE}),
    (4, "roll_out", {"rekey": st.booleans()}),
    (2, "rekey", {}),
    (3, "migrate", {"cut_off": st.booleans()}),
    (1, "abandon", {}),
    (1, "purge", {"back": st.integers(-1, 2)}),
    (2, "retire", {"back": st.integers(-1, 3)}),
    (2, "leave_old_keys", {}),
)  # fmt: skip
"""How often each is drawn, beside the others; its name; and what else than the node is drawn."""


def _step(drawn: tuple[str, dict[str, st.SearchStrategy[Any]]]) -> st.SearchStrategy[Step]:
    name, facts = drawn
    return st.builds(Step, st.just(name), st.fixed_dictionaries({"node": NODE, **facts}))


STEP = st.sampled_from([(s[1], s[2]) for s in STEPS for _ in range(s[0])]).flatmap(_step)


@dataclass
class Node:
    """A process, as it were, that has the ledger open."""

    ledger: SecretLedger
    ring: Ring
    stack: AsyncExitStack


def key(label: str) -> Key:
    return Key.from_bytes(sha256(label.encode()).digest(), label)


def keyring(ring: Ring) -> Keyring:
    current, *previous = map(key, ring)
    return Keyring.of(current, previous)


async def same(doing: Awaitable[T], saying: Callable[[], M]) -> tuple[T, M] | None:
    """What the ledger did, and the model; None where both refused, in the same way."""
    done: T | type[LedgerError]
    said: M | type[LedgerError]
    try:
        done = await doing
    except LedgerError as error:
        done = type(error)
    try:
        said = saying()
    except LedgerError as error:
        said = type(error)
    if isinstance(done, type) or isinstance(said, type):
        assert done is said, f"the ledger: {done}; the model: {said}"
        return None
    return done, said


class Fleet:
    """Two nodes and the model: each step is done to both."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.model = Model("k0")
        self.nodes: dict[str, Node] = {}
        self.numbers = count(1)

    async def play(self, steps: Sequence[Step]) -> None:
        await emptied(self.url)
        try:
            for node in ("one", "two"):
                await self.boot(node, ["k0"])
            await self.put_many("one", ["a", "b"], None, "founder")
            for name, facts in steps:
                await getattr(self, name)(**facts)
            for node in ("one", "two"):
                await self.look(node)
            await self.boot("booted", self.model.kept_keys(), verify="full")
            await self.look("booted")
            await self.check_rows()
        finally:
            for each in self.nodes.values():
                await each.stack.aclose()

    async def boot(self, name: str, ring: Ring, **options: Any) -> None:
        if name in self.nodes:
            await self.nodes.pop(name).stack.aclose()
        stack = AsyncExitStack()
        ledger = await stack.enter_async_context(
            SecretLedger.open(self.url, keyring(ring), node=name, heartbeat=3600, **options)
        )
        self.nodes[name] = Node(ledger, ring, stack)

    # --- what is the same of all steps ---------------------------------------------------

    async def write(self, doing: Awaitable[Any], saying: Callable[[], list[Version]]) -> None:
        if both := await same(doing, saying):
            told, new = both
            infos: Sequence[SecretInfo] = [told] if isinstance(told, SecretInfo) else told
            for info in infos:
                self.model.told(info.position, info.recorded_at)
            assert [shown(info) for info in infos] == [self.model.show(v) for v in new]

    async def change(self, doing: Awaitable[Any], saying: Callable[[], bool]) -> None:
        if both := await same(doing, saying):
            assert both[0].changed == both[1]

    def others(self, node: str) -> list[Ring]:
        """What the other nodes hold, of those that can still prove a line of theirs."""
        return [
            other.ring
            for name, other in self.nodes.items()
            if name != node and self.model.active in other.ring
        ]

    async def beat(self) -> None:
        """Each node renews its line, as its heartbeat would have by now."""
        for node in self.nodes.values():
            with suppress(LedgerError):
                await node.ledger._session.announce()

    def next_key(self) -> str:
        return f"k{len(self.model.keys)}"

    def expect(self, name: str, behind: int | None) -> int | None:
        versions = self.model.secrets.get(name)
        latest = versions[-1].base.version if versions else 0
        return None if behind is None else max(latest - behind, 0)

    def value(self, size: int) -> bytes:
        return f"value {next(self.numbers)} ".encode() * size

    def said(self, actor: str | None, noted: bool) -> dict[str, Any]:
        return {"actor": actor, "metadata": {"number": next(self.numbers)} if noted else {}}

    # --- secrets -------------------------------------------------------------------------

    async def put(
        self, node: str, name: str, size: int, behind: int | None, actor: str | None, noted: bool
    ) -> None:
        at, value, expect = self.nodes[node], self.value(size), self.expect(name, behind)
        said = self.said(actor, noted)
        await self.write(
            at.ledger.put(name, value, expect=expect, **said),
            lambda: self.model.put(at.ring, [(name, value, expect)], **said),
        )

    async def put_many(
        self, node: str, names: list[str], behind: int | None, actor: str | None
    ) -> None:
        at = self.nodes[node]
        items = [(name, self.value(1), self.expect(name, behind)) for name in names]
        await self.write(
            at.ledger.put_many(items, actor=actor),
            lambda: self.model.put(at.ring, items, actor=actor),
        )

    async def delete(
        self, node: str, name: str, behind: int | None, actor: str | None, noted: bool
    ) -> None:
        at, expect, said = self.nodes[node], self.expect(name, behind), self.said(actor, noted)
        await self.write(
            at.ledger.delete(name, expect=expect, **said),
            lambda: self.model.delete(at.ring, name, expect, **said),
        )

    async def restore(
        self,
        node: str,
        name: str,
        version: int | None,
        behind: int | None,
        actor: str | None,
        noted: bool,
    ) -> None:
        at, expect, said = self.nodes[node], self.expect(name, behind), self.said(actor, noted)
        await self.write(
            at.ledger.restore(name, version, expect=expect, **said),
            lambda: self.model.restore(at.ring, name, version, expect, **said),
        )

    async def bring_back(
        self, node: str, name: str, version: int | None, actor: str | None, noted: bool
    ) -> None:
        """What one node deletes, the other restores."""
        await self.delete(node, name, None, actor, noted)
        await self.restore("two" if node == "one" else "one", name, version, None, None, noted)

    async def destroy(self, node: str, name: str, actor: str | None) -> None:
        at = self.nodes[node]
        said: dict[str, Any] = {"reason": f"reason {next(self.numbers)}", "actor": actor}
        await self.write(
            at.ledger.destroy(name, **said), lambda: self.model.destroy(at.ring, name, **said)
        )

    # --- keys over time ------------------------------------------------------------------

    async def reopen(self, node: str, frugal: bool, level: Level) -> None:
        """Restart with all the keys that are not retired; or, frugal, with no more of them
        than the latest versions need."""
        ring = self.model.least_keys() if frugal else self.model.kept_keys()
        await self.boot(node, ring, verify="latest" if frugal else level)

    async def deploy(self, node: str) -> None:
        """Read the settings again, where the next key is the current one by now."""
        at, ring = self.nodes[node], [self.next_key(), *self.model.kept_keys()]
        assert await at.ledger.reload_keys(keyring(ring)) == (ring != at.ring)
        at.ring = ring

    async def rotate(self, node: str, given: bool, force: bool) -> None:
        """To the node's current key, or to one that it is given."""
        at, new = self.nodes[node], self.next_key()
        if given and self.model.active in at.ring:  # else the gate refuses the keyring
            at.ring = [new, *(held for held in at.ring if held != new)]
        await self.beat()
        await self.change(
            at.ledger.rotate(key(new) if given else None, force_reason="late" if force else None),
            lambda: self.model.rotate(at.ring, self.others(node), force=force),
        )

    async def roll_out(self, node: str, rekey: bool) -> None:
        """The next key takes over, with all nodes ready for it, and then all heads, or not."""
        for each in self.nodes:
            await self.deploy(each)
        await self.rotate(node, given=False, force=False)
        if rekey:
            await self.rekey(node)

    async def rekey(self, node: str) -> None:
        at = self.nodes[node]
        if both := await same(at.ledger.rekey(actor="operator"), lambda: self.model.rekey(at.ring)):
            assert (both[0].ok, both[0].rekeyed) == (True, both[1])

    async def migrate(self, node: str, cut_off: bool) -> None:
        """To the end; or cut off after a page, where nothing stops it before."""
        at, others = self.nodes[node], self.others(node)
        await self.beat()
        cut_off = cut_off and not self.model.missing(at.ring)

        def stop(_: object) -> None:
            raise Enough

        async def migrated() -> bool:
            try:
                return (await at.ledger.migrate(on_progress=stop if cut_off else None)).changed
            except Enough:
                return True

        modelled = self.model.begin_migration if cut_off else self.model.migrate
        if both := await same(migrated(), lambda: modelled(at.ring, others)):
            assert both[0] == both[1]
        if self.model.building is not None:
            states = await at.ledger.generations()
            (reached,) = [each.position for each in states if each.state == "building"]
            self.model.copied(reached)

    async def abandon(self, node: str) -> None:
        at = self.nodes[node]
        await self.change(at.ledger.abandon_migration(), lambda: self.model.abandon(at.ring))

    async def purge(self, node: str, back: int) -> None:
        at, generation = self.nodes[node], max(self.model.generation - back, 0)
        await self.change(
            at.ledger.purge_generation(generation), lambda: self.model.purge(at.ring, generation)
        )

    async def retire(self, node: str, back: int) -> None:
        at, label = self.nodes[node], f"k{max(len(self.model.keys) - 1 - back, 0)}"
        await self.change(at.ledger.retire(label), lambda: self.model.retire(at.ring, label))

    async def leave_old_keys(self, node: str) -> None:
        """The whole way to where nothing needs another key than the active one."""
        await self.migrate(node, cut_off=False)
        for back in range(1, self.model.generation + 1):
            await self.purge(node, back)
        for back in range(1, len(self.model.keys)):
            await self.retire(node, back)

    # --- what must be there --------------------------------------------------------------

    async def look(self, node: str) -> None:
        """All that a node reads, in every way that there is."""
        model, ledger, ring = self.model, self.nodes[node].ledger, self.nodes[node].ring
        heads = [model.head(name) for name in sorted(model.secrets, key=str.encode)]
        for prefix in ("", "a", "a/", "é"):
            for deleted in (False, True):
                assert [shown(s) async for s in ledger.list(prefix, deleted)] == [
                    model.show(head)
                    for head in heads
                    if head.name.startswith(prefix) and (deleted or head.state == "live")
                ]
        for name, versions in model.secrets.items():
            assert [shown(v) async for v in ledger.history(name)] == list(map(model.show, versions))
            await self.read(node, name)
            for number in range(1, len(versions) + 2):
                await self.read(node, name, version=number)
            for at in model.times.values():
                await self.read(node, name, at=at)
        report = await ledger.verify("full")
        assert report.ok == (not model.missing(ring)), report.findings
        assert {g.generation: g.state for g in await ledger.generations()} == model.generations()

    async def read(self, node: str, name: str, **which: Any) -> None:
        at = self.nodes[node]
        if both := await same(
            at.ledger.get(name, **which), lambda: self.model.read(at.ring, name, **which)
        ):
            got, version = both
            assert (shown(got), got.value.reveal()) == (self.model.show(version), version.value)

    async def check_rows(self) -> None:
        """The log by an independent reading of it, and `sys_secret` by a plain driver."""
        model = self.model
        log = await fold_log(self.url, [key(label) for label in model.kept_keys()])
        assert len(log) == model.position
        assert [event.key_id for event in log if event.stream == CONTROL] == model.control
        assert [
            (e.position, e.stream, e.version, e.event_type, e.key_id, e.purged, e.value)
            for e in log
            if e.stream != CONTROL
        ] == [
            (v.position, v.name, v.version, v.event_type, v.key, v.purged, v.stored)
            for v in model.versions()
        ]
        rows = await read_rows(
            self.url,
            "SELECT name, version, position, state, key_id, created_at, created_by,"
            " updated_at, updated_by FROM sys_secret",
        )
        assert sorted(
            (*row[:5], from_microseconds(row[5]), row[6], from_microseconds(row[7]), row[8])
            for row in rows
        ) == sorted(model.current())


EXAMPLES = {"sqlite": 25, "postgresql": 8}
SEARCH = "SECRET_LEDGER_TEST_EXAMPLES"
"""So many examples, drawn at random: to look for longer than the suite has time."""


@pytest.mark.timeout(600)  # to shrink what was found takes much longer than to find nothing
def test_any_sequence_of_operations_leaves_what_the_model_says(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "PAGE_BYTES", 600)  # some six small events
    monkeypatch.setattr(emptying, "BATCH", 10)
    monkeypatch.setattr(logging.getLogger("ledger"), "disabled", True)  # it would drown the steps

    @settings(
        max_examples=int(os.environ.get(SEARCH) or EXAMPLES[database_url.partition("+")[0]]),
        derandomize=SEARCH not in os.environ,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(STEP, min_size=25, max_size=40))
    def played(steps: list[Step]) -> None:
        asyncio.run(Fleet(database_url).play(steps))

    played()
