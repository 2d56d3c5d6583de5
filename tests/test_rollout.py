"""How far a key has got, and what of it is shown where there is little room."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from rich.console import Console, Group

from inside import Rollout, drawn, rollout
from secret_ledger import KeyStatus, NodeInfo

NOW = datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC)
OLD, NEW, THIRD = (bytes([n]) * 32 for n in (1, 2, 3))


def node(name: str, *readable: bytes, pending: bytes | None = None, **facts: object) -> NodeInfo:
    info = NodeInfo(
        node_id=name,
        node=name,
        host="h",
        pid=7,
        release="1",
        state="live",
        key_id="k-old",
        key_fingerprint=OLD,
        pending_id="k-new" if pending else None,
        pending_fingerprint=pending,
        readable=tuple((f"k{f[0]}", f.hex()) for f in readable),
        position=1234,
        reason="",
        refusals=0,
        started_at=NOW,
        last_seen=NOW,
        differs=False,
        heartbeat=10.0,
        age=3.2,
    )
    return replace(info, **facts)  # type: ignore[arg-type]


def status(
    key_id: str, fingerprint: bytes, state: Literal["active", "pending", "superseded"]
) -> KeyStatus:
    return KeyStatus(key_id, fingerprint, state, True, 1, 1, 2, NOW, None)


def seen(*nodes: NodeInfo, statuses: tuple[KeyStatus, ...] | None = None) -> Rollout:
    statuses = statuses or (status("k-old", OLD, "active"),)
    return rollout("ab" * 16, NOW, statuses, nodes, verified=True)


def text(fleet: Rollout, width: int = 120, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(Group(*drawn(fleet, width, height)), end="")
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_only_live_nodes_count_as_readers() -> None:
    fleet = seen(
        node("a", OLD, NEW, pending=NEW),
        node("b", OLD),
        node("c", OLD, NEW, pending=NEW, state="gone"),
        node("d", OLD, NEW, state="refused", refusals=3, reason="stale_key"),
    )
    active, pending = fleet.keys
    assert (active.state, active.readers, active.live, active.missing) == ("active", 2, 2, [])
    assert (pending.state, pending.readers, pending.live) == ("pending", 1, 2)
    assert pending.missing == ["b (pid 7 on h)"]


def test_a_key_is_pending_where_a_live_node_or_the_onlooker_waits_for_it() -> None:
    assert len(seen(node("a", OLD)).keys) == 1
    assert len(seen(node("c", OLD, NEW, pending=NEW, state="gone")).keys) == 1
    own = (status("k-old", OLD, "active"), status("mine", NEW, "pending"))
    (_, pending) = seen(node("a", OLD), statuses=own).keys
    assert (pending.key_id, pending.readers) == ("mine", 0)
    assert [k.key_fingerprint for k in seen(
        node("a", OLD, NEW, pending=NEW), node("b", OLD, THIRD, pending=THIRD)
    ).keys] == [OLD, NEW, THIRD]  # fmt: skip


def test_a_key_that_the_ledger_knows_is_not_pending_though_a_node_still_says_so() -> None:
    after = (status("k-old", OLD, "superseded"), status("k-new", NEW, "active"))
    (active,) = seen(node("a", OLD, NEW, pending=NEW), statuses=after).keys
    assert (active.key_id, active.readers) == ("k-new", 1)


def test_time_and_positions_alone_are_no_change() -> None:
    before = seen(node("a", OLD))
    later = node("a", OLD, position=9999, age=9.0, last_seen=NOW + timedelta(seconds=30))
    assert replace(seen(later), at=NOW + timedelta(hours=1)).settled() == before.settled()
    for changed in (
        node("a", OLD, state="gone"), node("a", OLD, NEW), node("a", OLD, reason="stale_key"),
        node("a", OLD, refusals=1), node("a", OLD, differs=True), node("a", OLD, pid=8),
        node("a", OLD, pending=NEW), node("a", OLD, node_id="restarted"),
    ):  # fmt: skip
        assert seen(changed).settled() != before.settled()
    assert replace(before, verified=False).settled() != before.settled()


def test_the_keys_stand_on_top_and_say_what_to_do_next() -> None:
    some = text(seen(node("a", OLD, NEW, pending=NEW), node("b", OLD)))
    assert some[0] == "12:00:05 UTC, ledger abababab…: 2 live, 0 gone, 0 refused"
    assert some[1] == "active  2 of 2 live nodes can read k-old (0101010101010101…)"
    assert some[2].startswith(
        "pending 1 of 2 live nodes can read k-new (0202020202020202…); not yet: b "
    )
    every = text(seen(node("a", OLD, NEW, pending=NEW)))
    assert every[2].endswith("; next: secret-ledger keys rotate")
    two = text(seen(node("a", OLD, NEW, pending=NEW), node("b", OLD, THIRD, pending=THIRD)))
    assert "nodes hold different pending keys: agree on one key" in two


def test_nodes_that_need_a_look_come_first_and_are_remarked_on() -> None:
    after = (status("k-old", OLD, "superseded"), status("k-new", NEW, "active"))
    fleet = seen(
        node("a", NEW),
        node("b", OLD, NEW, differs=True),
        node("c", OLD, differs=True, reason="stale_key"),
        node("d", OLD, state="refused", refusals=1200, reason="stale_key", age=7300.0),
        node("e", OLD, state="gone", age=100.0),
        statuses=after,
    )
    lines = text(fleet)
    assert lines[1].endswith("; fenced: c (pid 7 on h)")
    rows = [line.split() for line in lines[4:]]
    assert [row[1] for row in rows] == ["b", "c", "a", "e", "d"]
    assert [row[0] for row in rows] == ["live", "unready", "live", "gone", "refused"]
    assert lines[4].endswith("about to follow")
    assert lines[5].endswith("stale_key, lacks k-new")
    assert lines[6].endswith("3 s ago")
    assert "2 min ago" in lines[7]
    assert "2 h ago" in lines[8]
    assert lines[8].endswith("1,200 x stale_key")


def test_it_fits_any_terminal_and_counts_what_it_leaves_out() -> None:
    many = [node(f"checkout-7d9c5bd7f4-x{i:04}", OLD) for i in range(64)]
    fleet = seen(*many, node("late", OLD, reason="stale_key"))
    for width, height in ((80, 24), (40, 10), (200, 50), (20, 3)):
        lines = text(fleet, width, height)
        assert max(map(len, lines)) <= width
        assert len(lines) < max(height, 8)
    lines = text(fleet, 80, 24)
    assert " late " in lines[4]
    shown = [line for line in lines if line.startswith(("live", "unready"))]
    assert lines[-1] == f"and {65 - len(shown)} more: secret-ledger nodes"
    assert "checkout-7d9c5bd7f4-x0000" in lines[5]


def test_what_a_node_says_of_itself_can_t_move_the_cursor() -> None:
    lines = "\n".join(text(seen(node("a\x1b[2J[red]\n", OLD))))
    assert "\x1b" not in lines
    assert "a\\u001b[2J[red]\\n" in lines
