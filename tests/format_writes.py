"""What writers do by docs/format.md's rules: what they prove first, and what they seal.

Each operation changes the ledger's database and nothing else, or raises Refused before it does.
See `format_model`. No import of the project.
"""

from __future__ import annotations

from typing import NamedTuple

from format_checks import check_end, opens, rows_by_seals, verify_full
from format_model import (
    CONTROL,
    MOST_DAMAGED,
    NO_HASH,
    Database,
    Facts,
    Head,
    Refused,
    Row,
    Seal,
    state_of,
)  # fmt: skip
from format_reads import Ledger


class Draft(NamedTuple):
    """An event without its place."""

    stream: str
    type: str
    data: object = None
    facts: Facts = Facts()
    version: int | None = None
    key: str | None = None


def fresh(ledger: Ledger) -> Ledger:
    """The same process, looking again."""
    return Ledger(ledger.vault, ledger.database, ledger.held, ledger.now, ledger.dropped)


def write(ledger: Ledger, drafts: list[Draft], *, over: Head | None = None) -> list[Row]:
    """Seal drafts behind the newest event (or `over` damaged ones); the head row moves on."""
    database, vault, generation = ledger.database, ledger.vault, ledger.generation
    head, control = over or ledger.head, ledger.control
    position, epoch, key, time = (
        head.position,
        head.epoch,
        control.active,
        max(ledger.now, head.time),
    )
    written: list[Row] = []
    ahead: dict[str, Row] = {}
    for draft in drafts:
        position += 1
        if draft.type == "activated":
            key, epoch = str(draft.facts.key), epoch + 1
        if draft.type == "upgraded":
            epoch += 1
        rows = database.streams.get((generation, draft.stream), {})
        below = ahead.get(draft.stream) or (rows[max(rows)] if rows else None)
        row = Row(
            generation, position, draft.stream, below.version + 1 if below else 1, draft.type, key,
            time, draft.facts, vault.hash_of(below) if below else NO_HASH, Seal(0),
        )  # fmt: skip
        ahead[draft.stream] = row = vault.seal(row, draft.data)
        written.append(row)
    if any((generation, row.position) in database.rows for row in written):
        raise Refused("conflict: the position is taken")
    for row in written:
        database.rows[generation, row.position] = row
    database.heads[generation] = Head(position, time, epoch, head.state)
    for name in ("streams", "generations"):
        database.__dict__.pop(name, None)
    for name in ("generation", "head", "control"):
        ledger.__dict__.pop(name, None)
    return written


def may_append(ledger: Ledger) -> None:
    """What is proven before an append on a head row that this process did not leave."""
    if ledger.head.state != "active":
        raise Refused("moved")
    check_end(ledger)


def floor_facts(ledger: Ledger, newest: Row | None) -> Facts:
    """What an event built on `newest` seals of f."""
    control = ledger.control
    floor = ledger.floor(newest) if newest is not None else 0
    if control.upgraded is None or (control.born_upgraded and not floor):
        return Facts()
    return Facts(floor=floor)


def put(ledger: Ledger, stream: str, value: object) -> list[Row]:
    may_append(ledger)
    return write(
        ledger, [Draft(stream, "written", value, floor_facts(ledger, ledger.newest(stream)))]
    )


def delete(ledger: Ledger, stream: str) -> list[Row]:
    may_append(ledger)
    newest = ledger.newest(stream)
    if newest is None or state_of(newest) != "live":
        raise Refused("nothing to delete")
    return write(ledger, [Draft(stream, "deleted", None, floor_facts(ledger, newest))])


def restore(ledger: Ledger, stream: str) -> list[Row]:
    may_append(ledger)
    answer = ledger.restored(stream)
    if answer.kind != "value":
        raise Refused(f"nothing to restore: {answer.kind}")
    facts = floor_facts(ledger, ledger.newest(stream))
    return write(ledger, [Draft(stream, "restored", answer.value, facts)])


def destroy(ledger: Ledger, stream: str) -> list[Row]:
    """Also the way out for what is damaged: a stream, or the newest events of the log."""
    over = None
    try:
        may_append(ledger)
    except Refused:
        over = _over_damaged_events(ledger, stream)
    try:
        newest = ledger.newest(stream)
    except Refused:
        rows = ledger.database.streams[ledger.generation, stream]
        below = [r for r in rows.values() if r.version < max(rows) + 1]
        facts = Facts(unopened=True, rows=ledger.vault.census(below))
        if not ledger.control.upgraded:
            facts = Facts(unopened=True)
        return write(ledger, [Draft(stream, "destroyed", None, facts)], over=over)
    if newest is None or state_of(newest) == "destroyed":
        raise Refused("nothing to destroy")
    facts = floor_facts(ledger, newest)
    return write(ledger, [Draft(stream, "destroyed", None, facts)], over=over)


def _over_damaged_events(ledger: Ledger, stream: str) -> Head:
    """Where the log ends, if its newest events are damaged and `stream` is one of theirs."""
    rows = ledger.database.generations.get(ledger.generation, [])
    good = [r for r in rows if opens(ledger, r)]
    if not good:
        raise Refused("tampered: nothing opens")
    newest, end = good[-1], ledger.head.position
    above = [r for r in rows if r.position > newest.position]
    occupied = [r.position for r in above] == list(range(newest.position + 1, end + 1))
    ledger.demand("damage-occupied", occupied)
    ledger.demand("damage-bounded", 0 < end - newest.position <= MOST_DAMAGED)
    if stream not in [r.stream for r in above]:
        raise Refused("tampered: the newest events of the log are damaged")
    believed = "damage-time" in ledger.dropped
    return ledger.head if believed else ledger.head._replace(time=newest.time)


def rotate(ledger: Ledger, key: str) -> list[Row]:
    may_append(ledger)
    if _building(ledger):
        raise Refused("migration in progress")
    about = Facts(key=key)
    introduced = Draft(CONTROL, "introduced", None, about)
    return write(ledger, [introduced, introduced._replace(type="activated")])


def upgrade(ledger: Ledger) -> list[Row]:
    """An older ledger begins to seal facts."""
    may_append(ledger)
    if ledger.control.upgraded is not None:
        raise Refused("nothing to do")
    control, drafts = ledger.control, []
    if control.lost and "lost-verifies" not in ledger.dropped:
        verify_full(ledger, ends=frozenset(control.lost))
    for (generation, stream), found in sorted(ledger.database.streams.items()):
        row = found[max(found)]
        if generation == ledger.generation and row.key in control.lost and stream != CONTROL:
            census = ledger.vault.census(list(found.values()))
            facts = Facts(unopened=True, lost=row.key, rows=census)
            drafts.append(Draft(stream, "destroyed", None, facts))
    return write(ledger, [Draft(CONTROL, "upgraded"), *drafts])


def _building(ledger: Ledger) -> bool:
    return any(head.state == "building" for head in ledger.database.heads.values())


class Rekeyed(NamedTuple):
    """What `rekey` reports."""

    already: frozenset[str]
    written: list[Row]


def rekey(ledger: Ledger) -> Rekeyed:
    may_append(ledger)
    control, already, drafts = ledger.control, [], []
    for generation, stream in sorted(ledger.database.streams):
        if generation != ledger.generation or stream == CONTROL:
            continue
        rows = ledger.database.streams[generation, stream]
        row = rows[max(rows)]
        if row.key == control.active:
            already.append(stream)
            continue
        newest = ledger.newest(stream)
        assert newest is not None
        facts = floor_facts(ledger, newest)
        if newest.type == "destroyed" or state_of(newest) == "destroyed":
            facts = Facts(floor=ledger.floor(newest) if control.upgraded else None)
        lost = newest.facts.lost
        facts = facts._replace(
            of=newest.facts.of or newest.version, state=state_of(newest), lost=lost
        )
        data = ledger.vault.data(newest)
        drafts.append(Draft(stream, "rekeyed", data, facts))
    if "already-proven" not in ledger.dropped:
        ledger.demand("sum-of-versions", rows_by_seals(ledger) == ledger.head.position)
    return Rekeyed(frozenset(already), write(ledger, drafts) if drafts else [])


def lose(ledger: Ledger, key: str) -> list[Row]:
    """Give up a superseded key that is not held."""
    may_append(ledger)
    control = ledger.control
    if key in {control.active, *ledger.held, *control.lost, *control.retired}:
        raise Refused("in use")
    if "lost-while-building" not in ledger.dropped and _building(ledger):
        raise Refused("migration in progress")
    if "lost-verifies" not in ledger.dropped:
        verify_full(ledger, but=frozenset([key]))
    rows = ledger.database.generations[ledger.generation]
    under = [r for r in rows if r.key == key]
    drafts = []
    for (generation, stream), found in sorted(ledger.database.streams.items()):
        row = found[max(found)]
        if generation == ledger.generation and row.key == key and stream != CONTROL:
            facts = Facts(unopened=True, lost=key, rows=ledger.vault.census(list(found.values())))
            drafts.append(Draft(stream, "destroyed", None, facts))
    about = Facts(key=key)
    if control.upgraded is not None:
        about = Facts(key=key, ends=len(drafts), rows=ledger.vault.census(under))
    else:
        drafts = []
    return write(ledger, [*drafts, Draft(CONTROL, "lost", None, about)])


def retire(ledger: Ledger, key: str) -> list[Row]:
    """Certify that nothing needs a key."""
    may_append(ledger)
    control = ledger.control
    if key not in [known for _, known in control.activated]:
        raise Refused("unknown key")
    if key in {control.active, *control.lost, *control.retired}:
        raise Refused("in use")
    without = Ledger(ledger.vault, ledger.database, ledger.held - {key}, ledger.now, ledger.dropped)
    if "retire-verifies" not in ledger.dropped:
        verify_full(without)
    elif any(r.key == key and not r.sealed.purged for r in ledger.database.rows.values()):
        raise Refused("key in use")
    if any(h.state in ("building", "purging") for h in ledger.database.heads.values()):
        raise Refused("half purged")
    return write(ledger, [Draft(CONTROL, "retired", None, Facts(key=key))])


def purge(ledger: Ledger, generation: int) -> list[Row]:
    """Delete a closed generation, once what stays is proven."""
    may_append(ledger)
    head = ledger.database.heads.get(generation)
    if head is None or head.state != "closed" or generation in ledger.control.purged:
        raise Refused("not closed")
    if "purge-verifies" not in ledger.dropped:
        verify_full(ledger)
    written = write(ledger, [Draft(CONTROL, "purged", None, Facts(generation=generation))])
    _empty(ledger.database, generation)
    return written


def _empty(database: Database, generation: int) -> None:
    for place in [place for place in database.rows if place[0] == generation]:
        del database.rows[place]
    database.heads[generation] = database.heads[generation]._replace(state="purged")
    for name in ("streams", "generations"):
        database.__dict__.pop(name, None)


def build(ledger: Ledger) -> list[Row]:
    """Copy the history into the next generation, which is left building."""
    may_append(ledger)
    control, database = ledger.control, ledger.database
    if _building(ledger):
        raise Refused("migration in progress")
    verify_full(ledger)
    rows = database.generations[ledger.generation]
    if all(r.key == control.active for r in rows):
        raise Refused("nothing to do")
    number = max(database.heads) + 1
    database.heads[number] = Head(0, 0, ledger.head.epoch, "building")
    return _copy(ledger, number)


def _copy(ledger: Ledger, number: int) -> list[Row]:
    """Seal in the building generation what it lacks."""
    control, vault, database = ledger.control, ledger.vault, ledger.database
    rows = database.generations[ledger.generation]
    there = database.streams
    hashes = {
        stream: vault.hash_of(found[max(found)])
        for (generation, stream), found in there.items()
        if generation == number
    }
    done = database.heads[number].position
    copied: list[Row] = []
    for row in rows[done:]:
        newest = ledger.newest(row.stream) if row.stream != CONTROL else None
        floor = ledger.floor(newest) if newest is not None else 0
        gone = row.sealed.purged or row.version < floor
        has_data = state_of(row) == "live" and row.stream != CONTROL
        gone = gone or (has_data and row.key in control.lost)
        copy = row._replace(generation=number, prev=hashes.get(row.stream, NO_HASH))
        if gone:
            copy = copy._replace(sealed=Seal(row.sealed.number, purged=True))
        else:
            data = vault.data(row) if has_data else None
            copy = vault.seal(copy._replace(key=control.active), data)
        hashes[row.stream] = vault.hash_of(copy)
        copied.append(copy)
    for row in copied:
        database.rows[number, row.position] = row
    if copied:
        database.heads[number] = Head(
            rows[-1].position, rows[-1].time, ledger.head.epoch, "building"
        )
    for name in ("streams", "generations"):
        database.__dict__.pop(name, None)
    return copied


def flip(ledger: Ledger) -> list[Row]:
    """Put the building generation to use."""
    database, vault = ledger.database, ledger.vault
    old, control = ledger.generation, ledger.control
    number = max(g for g, head in database.heads.items() if head.state == "building")
    copied = _copy(ledger, number)
    gone = [
        r for r in database.generations[number]
        if r.stream != CONTROL and r.key in control.lost
    ]  # fmt: skip
    key = control.active
    closed = write(ledger, [Draft(CONTROL, "closed", None, Facts(key=key, generation=number))])
    purged = vault.census(gone) if control.upgraded is not None else None
    facts = Facts(key=key, generation=number, purged=purged)
    before = database.streams[number, CONTROL]
    newest = before[max(before)]
    opened = vault.seal(
        Row(
            number, closed[0].position, CONTROL, newest.version + 1, "opened", key,
            ledger.now, facts, vault.hash_of(newest), Seal(0),
        ),
        None,
    )  # fmt: skip
    database.rows[number, opened.position] = opened
    head = database.heads[old]
    database.heads[old] = head._replace(state="closed")
    database.heads[number] = Head(opened.position, ledger.now, head.epoch, "active")
    for name in ("streams", "generations"):
        database.__dict__.pop(name, None)
    return [*copied, *closed, opened]


def abandon(ledger: Ledger) -> list[Row]:
    """Give up the building generation."""
    may_append(ledger)
    number = max(g for g, head in ledger.database.heads.items() if head.state == "building")
    written = write(ledger, [Draft(CONTROL, "abandoned", None, Facts(generation=number))])
    _empty(ledger.database, number)
    return written
