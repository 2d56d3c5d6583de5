"""What somebody can do who has every row that ever existed, and no key.

See `format_model`. No import of the project.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from format_histories import SECRETS, World
from format_model import CONTROL, MOST_DAMAGED, NO_HASH, Database, Facts, Head, Row, Seal


class Edit(NamedTuple):
    """One statement (or one script): rows that it takes out, rows and head rows that it writes."""

    what: str
    remove: tuple[tuple[int, int], ...] = ()
    rows: tuple[Row, ...] = ()
    heads: tuple[tuple[int, Head | None], ...] = ()

    def __str__(self) -> str:
        parts = [self.what]
        if self.remove:
            parts.append(f"take out {list(self.remove)}")
        parts += [f"write {tuple(r[:7])} {_brief(r.facts)} {tuple(r.sealed)}" for r in self.rows]
        parts += [f"head row {g}: {tuple(h) if h else None}" for g, h in self.heads]
        return " ".join(parts)


def _brief(facts: Facts) -> dict[str, object]:
    return {k: v for k, v in facts._asdict().items() if v not in (None, False)}


def apply(database: Database, edits: tuple[Edit, ...]) -> Database:
    """The database with the edits made, in order."""
    database = database.copy()
    rows = database.rows
    for edit in edits:
        for place in edit.remove:
            rows.pop(place, None)
        for new in edit.rows:
            name = (new.generation, new.stream, new.version)
            for place in [p for p, r in rows.items() if (r[0], r[2], r[3]) == name]:
                del rows[place]  # one row a version: the index
            rows[new.generation, new.position] = new
        for generation, head in edit.heads:
            if head is None:
                database.heads.pop(generation, None)
            else:
                database.heads[generation] = head
    return database


def edits_of(world: World) -> Iterator[Edit]:
    """All single edits that could matter, each state once."""
    seen = set(world.database.rows.values())
    for edits in (head_edits, bulk_edits, replays, column_edits, moved_rows):
        for edit in edits(world):
            if edit.what in ("alter", "copy"):
                if edit.rows[0] in seen:
                    continue
                seen.add(edit.rows[0])
            yield edit


def replays(world: World) -> Iterator[Edit]:
    """Rows taken out, and rows that once were put in their places again."""
    rows = world.database.rows
    for place in rows:
        yield Edit("delete", (place,))
    for row in world.pool:
        if rows.get((row.generation, row.position)) != row:
            yield Edit("replay", (), (row,))
            head = world.database.heads.get(row.generation)
            if head is not None and row.position == head.position + 1:
                moved = head._replace(position=row.position, time=row.time)
                yield Edit("replay, and the head row", (), (row,), ((row.generation, moved),))


def head_edits(world: World) -> Iterator[Edit]:
    heads = world.database.heads
    for generation, head in heads.items():
        new: list[Head | None] = [None]
        states = ("building", "active", "closed", "purging", "purged", "moved")
        new += [head._replace(state=state) for state in states]
        for position in (0, head.position - 1, head.position - 2, head.position + 1, 99):
            row = world.database.rows.get((generation, position))
            for time in {head.time, 9999, row.time if row else head.time}:
                new.append(head._replace(position=position, time=time))
        new += [head._replace(time=time) for time in (0, head.time - 10, 9999)]
        new += [head._replace(epoch=epoch) for epoch in (head.epoch - 1, head.epoch + 1)]
        for changed in new:
            if changed != head:
                yield Edit("head", heads=((generation, changed),))
    newest = heads[max(heads)]
    for state in ("building", "active", "closed", "purged"):
        yield Edit("head", heads=((max(heads) + 1, newest._replace(state=state)),))


def bulk_edits(world: World) -> Iterator[Edit]:
    """Many rows at once: emptied, cut off, rolled back, filled up, swapped."""
    database = world.database
    for generation, head in database.heads.items():
        rows = database.generations.get(generation, [])
        places = tuple((generation, row.position) for row in rows)
        for state in (head, head._replace(state="purged"), None):
            yield Edit("empty", places, heads=((generation, state),))
        for last in rows[:-1]:
            cut = head._replace(position=last.position, time=last.time)
            above = tuple(p for p in places if p[1] > last.position)
            yield Edit("cut off", above, heads=((generation, cut),))
    yield from _roll_backs(world)
    yield from _fillings(world)
    rows = list(database.rows.values())
    for number, one in enumerate(rows):
        for other in rows[number + 1 :]:
            if one.generation != other.generation:
                continue
            both = ((one.generation, one.position), (other.generation, other.position))
            yield Edit(
                "swap positions",
                both,
                (one._replace(position=other.position), other._replace(position=one.position)),
            )
            yield Edit(
                "swap names",
                both,
                (
                    one._replace(stream=other.stream, version=other.version),
                    other._replace(stream=one.stream, version=one.version),
                ),
            )
            yield Edit("swap seals", both, (
                one._replace(sealed=other.sealed), other._replace(sealed=one.sealed)))  # fmt: skip


def _roll_backs(world: World) -> Iterator[Edit]:
    """An earlier generation put in use again."""
    heads, rows = world.database.heads, world.database.generations
    newest = max(heads)
    for generation in heads:
        if generation == newest or generation not in rows:
            continue
        control = world.database.streams[generation, CONTROL]
        epoch = sum(row.type in ("activated", "upgraded") for row in control.values())
        last, before = rows[generation][-1], rows[generation][-2]
        closed = Head(last.position, last.time, epoch, "active")
        opened = Head(before.position, before.time, epoch, "active")
        for state in (heads[newest]._replace(state="building"),
                      heads[newest]._replace(state="purged"), None):  # fmt: skip
            yield Edit("roll back", (), (), ((generation, closed), (newest, state)))
            place = (generation, last.position)
            yield Edit("roll back", (place,), (), ((generation, opened), (newest, state)))
            gone = tuple((newest, row.position) for row in rows.get(newest, []))
            yield Edit("roll back", gone, (), ((generation, closed), (newest, state)))


def _fillings(world: World) -> Iterator[Edit]:
    """Garbage behind the newest event, with a head row that says so."""
    generation = max(world.database.heads)
    head = world.database.heads[generation]
    there = world.database.streams.get((generation, "a"), {})
    top = there[max(there)] if there else None
    if top is None:
        return
    for first, last in ((1, 1), (2, 2), (1, 2), (1, MOST_DAMAGED + 1), (99, 99)):
        garbage = tuple(
            top._replace(position=head.position + n, version=top.version + n, sealed=Seal(0))
            for n in range(first, last + 1)
        )
        for time in (head.time, 9999):
            new = head._replace(position=head.position + last, time=time)
            yield Edit("fill", (), garbage, ((generation, new),))


def _keys(world: World) -> list[str]:
    return sorted({row.key for row in world.pool})


def column_edits(world: World) -> Iterator[Edit]:
    """One column of a row that is there; and with it what has to be recomputed."""
    database, vault = world.database, world.vault
    facts = {(row.stream == CONTROL, row.facts) for row in world.pool}
    types = ("written", "deleted", "restored", "rekeyed", "destroyed")
    for place, row in database.rows.items():
        there = database.streams[row.generation, row.stream]
        secret = row.stream != CONTROL
        new: list[Row] = []
        versions = (0, row.version - 1, row.version + 1, max(there) + 1)
        new += [row._replace(version=version) for version in versions]
        new += [row._replace(stream=s) for s in (*SECRETS, "c", CONTROL)]
        end = database.heads[row.generation].position
        new += [row._replace(position=p) for p in (0, end + 1, 99)]
        new += [row._replace(generation=g) for g in (*database.heads, max(database.heads) + 1)]
        if secret:
            new += [row._replace(type=t) for t in types]
        else:
            new += [row._replace(type="lost", facts=Facts(key=k)) for k in _keys(world)]
            new += [row._replace(type="purged", facts=Facts(generation=g)) for g in database.heads]
        new += [row._replace(key=k) for k in (*_keys(world), "stolen")]
        new += [row._replace(time=t) for t in (0, row.time - 10, row.time + 10, 9999)]
        new += [row._replace(facts=f) for control, f in sorted(facts, key=str) if control != secret]
        floors = (None, 0, row.version - 1)
        new += [row._replace(facts=row.facts._replace(floor=f)) for f in floors]
        new += [row._replace(prev=vault.hash_of(r)) for r in there.values()]
        new += [row._replace(prev=NO_HASH)]
        new += [row._replace(sealed=s) for s in (Seal(0), row.sealed._replace(purged=True))]
        new += [row._replace(sealed=r.sealed) for r in there.values()]
        new += [row._replace(key=k, sealed=row.sealed._replace(purged=True)) for k in _keys(world)]
        for changed in new:
            if changed != row:
                yield Edit("alter", (place,), (changed,))
        if row.type == "upgraded":
            head = database.heads[row.generation]
            hidden = ((row.generation, head._replace(epoch=head.epoch - 1)),)
            yield Edit("hide S", (place,), (row._replace(stream="c", version=1),), hidden)


def moved_rows(world: World) -> Iterator[Edit]:
    """A row that ever was, as another version of any stream."""
    database, vault = world.database, world.vault
    generation = max(g for g, h in database.heads.items() if h.state == "active")
    end = database.heads[generation].position
    for row in world.pool:
        for stream in (*SECRETS, CONTROL):
            there = database.streams.get((generation, stream), {})
            for version in (*there, max(there, default=0) + 1):
                taken = there.get(version)
                below = there.get(version - 1)
                prev = vault.hash_of(below) if below else NO_HASH
                behind = taken.position if taken else end + 1
                for position in sorted({row.position, behind, end, end + 1}):
                    moved = row._replace(
                        generation=generation, stream=stream, version=version, position=position,
                        prev=prev,
                    )  # fmt: skip
                    place = (row.generation, row.position)
                    if database.rows.get(place) == row:
                        yield Edit("move", (place,), (moved,))
                        for key in _keys(world):
                            if key != row.key:
                                yield Edit("move", (place,), (moved._replace(key=key),))
                    yield Edit("copy", (), (moved,))
                    purged = row.sealed._replace(purged=True)
                    yield Edit("copy", (), (moved._replace(sealed=purged),))
                    for key in _keys(world):
                        yield Edit("copy", (), (moved._replace(key=key),))


def forgeries(world: World) -> Iterator[Edit]:
    """What somebody adds who has a superseded key: events sealed under it, outside of its time."""
    database, vault = world.database, world.vault
    ledger = world.ledger()
    control, generation = ledger.control, ledger.generation
    for key in _keys(world):
        if key == control.active:
            continue
        for place, row in database.rows.items():
            if place[0] == generation and control.authority(row.position) != key:
                forged = vault.seal(row._replace(key=key), "forged")
                yield Edit("forge", (place,), (forged,))
        if generation == 0:
            continue
        there = database.streams[generation, CONTROL]
        last = there[max(there)]
        gone = tuple(place for place in database.rows if place[0] == 0)
        heads = ((0, database.heads[0]._replace(state="purged")),)
        for row in database.generations[generation]:
            if row.position > last.position:
                purged = row._replace(
                    stream=CONTROL, version=last.version + 1, type="purged", key=key,
                    prev=vault.hash_of(last), facts=Facts(generation=0),
                )  # fmt: skip
                yield Edit("forge a purge", gone, (vault.seal(purged, None),), heads)
