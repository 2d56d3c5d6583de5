"""What boot and full verification check, by docs/format.md's rules.

See `format_model`. No import of the project.
"""

from __future__ import annotations

from format_model import CONTROL, NO_HASH, Control, Refused, Row
from format_reads import Ledger

__all__ = ["check_end", "opens", "rows_by_seals", "verify_full", "verify_latest"]


def check_end(ledger: Ledger) -> Row:
    """The newest event of the log opens at the head row's position and time; nothing is above."""
    head, generation = ledger.head, ledger.generation
    rows = ledger.database.generations.get(generation, [])
    last = ledger.database.rows.get((generation, head.position))
    if last is None:
        raise Refused("tampered: no event at the head row's position")
    ledger.demand("nothing-behind-head", rows[-1].position == head.position)
    ledger.demand("last-opens", opens(ledger, last))
    ledger.demand("last-time", last.time == head.time)
    return last


def opens(ledger: Ledger, row: Row) -> bool:
    """Whether a row opens, under the held key of its position."""
    return (
        ledger.control.authority(row.position) == row.key
        and row.key in ledger.held
        and ledger.vault.opens(row)
    )


def verify_latest(ledger: Ledger) -> None:
    """Boot: each newest event opens, and the log is as long as its head row says."""
    check_end(ledger)
    ledger.demand("sum-of-versions", rows_by_seals(ledger) == ledger.head.position)


def rows_by_seals(ledger: Ledger) -> int:
    """How many rows the generation in use has, as the newest events say."""
    total = 0
    for (generation, stream), rows in ledger.database.streams.items():
        if generation != ledger.generation:
            continue
        if stream == CONTROL:
            total += max(rows)
            continue
        newest = ledger.newest(stream)
        total += _length(ledger, newest) if newest is not None else 0
    return total


def _length(ledger: Ledger, row: Row) -> int:
    """How many rows a stream has up to an event that was opened, as seals say: fewer than its
    version if the stream was ended over a row whose version was damaged."""
    if row.facts.rows is not None:
        return row.facts.rows[0] + 1
    floor = row.facts.floor or 0
    end = ledger.database.streams[row.generation, row.stream].get(floor)
    if not floor or end is None or not ledger.vault.opens(end):
        return row.version
    return _length(ledger, end) + row.version - floor


def verify_full(
    ledger: Ledger, but: frozenset[str] = frozenset(), ends: frozenset[str] = frozenset()
) -> None:
    """All of the generation in use, and of every other one. Keys of `but` may be missing; newest
    events under the lost keys of `ends` may be there still."""
    check_end(ledger)
    verify_generation(ledger, ledger.generation, but, ends)
    control, rows = ledger.control, ledger.database.generations
    for generation in set(rows) - set(ledger.database.heads):
        raise Refused(f"tampered: rows of generation {generation}, which has no head row")
    for generation in range(ledger.generation):
        named = generation == 0 or generation in [o.facts.generation for o in control.openings]
        if not named:
            continue
        there = rows.get(generation, [])
        if generation in control.purged:
            purged = ledger.database.heads.get(generation)
            ledger.demand(
                "purged-is-empty", not there or (purged or ledger.head).state == "purging"
            )
            continue
        ledger.demand("closed-is-there", bool(there))
        if there:
            closed = ledger.control_of(generation)
            ledger.demand("closed-is-whole", closed.closed and closed.end == there[-1].position)
            verify_generation(ledger, generation, but)


def verify_generation(
    ledger: Ledger, generation: int, but: frozenset[str], ends: frozenset[str] = frozenset()
) -> None:
    """Every row of a generation: its place, time, chain, key, seal and floor."""
    vault, control = ledger.vault, ledger.control
    in_use = generation == ledger.generation
    own = control if in_use else ledger.control_of(generation)
    rows = ledger.database.generations[generation]
    before: Row | None = None
    newest = {stream: max(found) for (g, stream), found in ledger.database.streams.items()
              if g == generation}  # fmt: skip
    floors = _ends(ledger, generation)
    missing: set[str] = set()
    for row in rows:
        ledger.demand("gapless", row.position == (before.position + 1 if before else 1))
        if before is not None and before.time > row.time:
            raise Refused("tampered: times fall")
        before = row
        ended = row.version <= floors.get(row.stream, 0)
        if row.version < 1:
            raise Refused("tampered: no such version")
        if row.version < _damaged_below(ledger, row, own):
            continue  # the census of the end over them covers them
        _check_link(ledger, row)
        if row.sealed.purged:
            accepted = ended or ledger.purged_is_accepted(row, own)
            ledger.demand("full-purged", accepted)
        else:
            ledger.demand("full-authority", own.authority(row.position) == row.key)
            if row.key not in ledger.held:
                if row.key not in control.lost:
                    missing.add(row.key)
            else:
                ledger.demand("full-opens", vault.opens(row))
        top = row.version == newest[row.stream] and row.stream != CONTROL
        if in_use and top and row.key not in but | ends:
            ledger.newest(row.stream)
    _check_facts(ledger, rows, own)
    if missing - but:
        raise Refused(f"missing: {sorted(missing)}")


def _ends(ledger: Ledger, generation: int) -> dict[str, int]:
    """The newest `destroyed` of each stream that was ended."""
    found: dict[str, int] = {}
    for row in ledger.database.generations[generation]:
        if row.type == "destroyed" and row.stream != CONTROL:
            found[row.stream] = max(found.get(row.stream, 0), row.version)
    return found


def _damaged_below(ledger: Ledger, row: Row, own: Control) -> int:
    """Below which version the rows of a stream are covered by the census of an end over damage,
    in the generation that it was written in. A migration chains them."""
    opened = own.own.position if own.own else 0
    return max(
        (r.version for r in _ends_over_damage(ledger, row) if r.position > opened), default=0
    )


def _ends_over_damage(ledger: Ledger, row: Row) -> list[Row]:
    rows = ledger.database.streams[row.generation, row.stream].values()
    return [r for r in rows if r.facts.unopened and r.facts.lost is None]


def _check_link(ledger: Ledger, row: Row) -> None:
    rows = ledger.database.streams[row.generation, row.stream]
    below = rows.get(row.version - 1)
    if below is None and any(r.version >= row.version for r in _ends_over_damage(ledger, row)):
        below = rows.get(max((v for v in rows if v < row.version), default=0))
    if row.version == 1 or (below is None and _damaged_first(ledger, row)):
        ledger.demand("full-chain", row.prev == NO_HASH)
    else:
        follows = below is not None and ledger.vault.hash_of(below) == row.prev
        ledger.demand("full-chain", follows)
        if below is not None and below.position >= row.position:
            raise Refused("tampered: positions fall")


def _damaged_first(ledger: Ledger, row: Row) -> bool:
    """Whether a row is the first of its stream although its version says otherwise."""
    rows = ledger.database.streams[row.generation, row.stream]
    return row.version == min(rows) and bool(_ends_over_damage(ledger, row))


def _check_facts(ledger: Ledger, rows: list[Row], control: Control) -> None:
    """What was sealed for readers is what the chain says."""
    vault, generation = ledger.vault, rows[0].generation
    floors: dict[str, int] = {}
    for row in rows:
        if row.stream == CONTROL:
            continue
        floor = floors.get(row.stream, 0)
        if row.type == "destroyed":
            floors[row.stream] = row.version
        elif row.version > floor and not row.sealed.purged:
            second_line((row.facts.floor or 0) == floor or row.position < (control.upgraded or 0))
        if row.facts.unopened and row.facts.lost is None:
            opened = control.own.position if control.own else 0
            if control.upgraded is None or row.position < max(control.upgraded, opened):
                continue  # sealed by an older release; or chained by the migration
            below = [r for r in rows if r.stream == row.stream and r.version < row.version]
            ledger.demand("census-of-an-end", row.facts.rows == vault.census(below))
    own = control.own
    if own is not None and own.facts.purged is not None:
        gone = [r for r in rows if r.position <= own.position and _lost_before(control, r, own)]
        second_line(own.facts.purged == vault.census(gone))
    for key, lost in control.lost.items():
        if control.generation_at(lost.position) != generation or not lost.facts.rows:
            continue
        under = [r for r in rows if r.key == key]
        second_line(lost.facts.rows == vault.census(under))
        ends = [r for r in rows if r.type == "destroyed" and r.facts.lost == key]
        second_line(lost.facts.ends == len(ends))


def second_line(holds: bool) -> None:
    """What is checked although the chains prove it already, as far as this model knows."""
    if not holds:
        raise Refused("tampered: facts that the chain contradicts")


def _lost_before(control: Control, row: Row, opening: Row) -> bool:
    lost = control.lost.get(row.key)
    return lost is not None and lost.position < opening.position and row.stream != CONTROL
