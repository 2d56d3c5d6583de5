"""The report of a verification: findings that name the row, counts, and the verdict. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from secret_ledger.errors import InvalidValue, LedgerError, MissingKey, TamperedEvent
from secret_ledger.model.events import Event
from secret_ledger.model.refusals import printable

__all__ = [
    "MAX_FINDINGS",
    "Finding",
    "Level",
    "OnProgress",
    "OpenLevel",
    "Progress",
    "Tally",
    "VerifyReport",
    "check_level",
    "check_open_level",
    "finding_of",
    "report_of",
]

Level = Literal["control", "latest", "full"]
OpenLevel = Literal["control", "incremental", "latest", "full"]
"""`incremental` opens a ledger on the strength of an earlier verification."""
MAX_FINDINGS: Final = 1000


def check_level(level: str) -> None:
    """Raises InvalidValue if `level` is no Level: a slip must not weaken the proof."""
    if level == "incremental":
        raise InvalidValue(
            "incremental is a level of open, not of verify: verify does not build on an"
            " attestation",
            hint='open(verify="incremental"), then verify("latest") or verify("full")',
        )
    _check(level, get_args(Level))


def check_open_level(level: str) -> None:
    """Raises InvalidValue if `level` is no OpenLevel."""
    _check(level, get_args(OpenLevel))


def _check(level: str, levels: tuple[str, ...]) -> None:
    if level not in levels:
        raise InvalidValue(f"verify is one of {', '.join(levels)}, not {level!r}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, and its place."""

    kind: Literal["tampered", "missing_key", "projection"]
    reason: str
    position: int | None = None
    stream: str | None = None
    version: int | None = None
    generation: int | None = None
    expected_fingerprint: str | None = None
    actual_fingerprint: str | None = None
    key_id: str | None = None


def finding_of(event: Event, problem: LedgerError | str) -> Finding:
    """The finding for one row with this problem."""
    details = {} if isinstance(problem, str) else problem.details
    reason = problem if isinstance(problem, str) else problem.message
    return Finding(
        kind="missing_key" if isinstance(problem, MissingKey) else "tampered",
        reason=str(details.get("reason", reason)),
        position=event.position,
        stream=printable(event.stream),
        version=event.version,
        generation=event.generation,
        expected_fingerprint=details.get("expected_fingerprint"),
        actual_fingerprint=details.get("actual_fingerprint"),
        key_id=printable(event.key_id),
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long operation is: `done` of `total` things."""

    done: int
    total: int


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of a verification."""

    level: OpenLevel
    """The level that was run.

    `open(verify="incremental")` runs `latest` if it can't build on an earlier verification."""
    events: int
    """Number of rows that were checked."""
    heads: int
    """Number of secrets whose newest event was checked, deleted secrets too.

    0 at level `control`. At level `incremental`, the secrets of the sample."""
    by_key: Mapping[str, int]
    """Number of checked rows under each key, by key id."""
    findings: Sequence[Finding]
    omitted: int
    """Number of findings beyond the first 1,000 of each kind. They are left out."""
    seconds: float
    warnings: Sequence[str] = ()
    """Messages for an operator about facts that are no damage."""
    omitted_by_kind: Mapping[str, int] = field(default_factory=dict)
    """Number of omitted findings, by kind. A kind without omitted findings has no entry."""

    @property
    def ok(self) -> bool:
        """Whether the verification has no findings."""
        return not self.findings

    def raise_if_not_ok(self) -> None:
        """Raises TamperedEvent for any damage, or if a projection differs from the log.

        Otherwise raises MissingKey if a key is missing. The error counts and names the secrets.
        """
        damaged, damages = self._of("tampered")
        folded, differences = self._of("projection")
        missing, unheld = self._of("missing_key")
        if folded and not damaged:
            raise TamperedEvent(
                f"{differences:,} values of a projection differ from the log: {folded[0].reason}",
                hint="the log is the truth; mend the table: `secret-ledger projections rebuild`,"
                " or secret_ledger_projections.rebuild for one of your own",
                findings=differences,
            )
        versions = "versions of secrets" if self.level == "full" else "secrets"
        if damaged:
            first = damaged[0]
            beside = f"; {unheld:,} {versions} are under keys that are not held" if unheld else ""
            raise TamperedEvent(
                f"{damages:,} damaged: {_place(first)}: {first.reason}{beside}",
                hint="`secret-ledger verify --level full` lists every damaged row; restore them"
                " from a backup, or `destroy` the secrets that can't be saved",
                findings=damages,
                position=first.position,
                stream=first.stream,
                version=first.version,
                expected_fingerprint=first.expected_fingerprint,
                actual_fingerprint=first.actual_fingerprint,
            )
        if missing:
            names = sorted({f.stream or "?" for f in missing})
            keys = sorted({f.key_id or "?" for f in missing})
            shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            raise MissingKey(
                f"{unheld:,} {versions} are under {', '.join(keys)}, which is not in the keyring:"
                f" {shown}",
                hint=f"add {', '.join(keys)} to OS_SECRET_PREVIOUS_KEYS",
                key_ids=keys,
                secrets=names[:100],
            )

    def _of(self, kind: str) -> tuple[Sequence[Finding], int]:
        """Returns the kept findings of a kind, and the number of all, omitted findings too."""
        kept = [finding for finding in self.findings if finding.kind == kind]
        return kept, len(kept) + self.omitted_by_kind.get(kind, 0)


def report_of(level: OpenLevel, error: LedgerError) -> VerifyReport:
    """The report of a verification that `error`, a TamperedEvent, has ended.

    That happens if rows that all other checks rest on are damaged, such as the control stream.
    """
    known = {
        name: error.details.get(name)
        for name in (
            "position", "stream", "version", "generation",
            "expected_fingerprint", "actual_fingerprint", "key_id",
        )
    }  # fmt: skip
    reason = str(error.details.get("reason", error.message))
    return VerifyReport(level, 0, 0, {}, (Finding("tampered", reason, **known),), 0, 0.0)


def _place(finding: Finding) -> str:
    if finding.stream is None:
        return f"position {finding.position}" if finding.position else "the ledger"
    return f"{finding.stream} version {finding.version} at position {finding.position}"


@dataclass(slots=True)
class Tally:
    """The counts and findings of a verification so far."""

    findings: list[Finding] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    omitted: Counter[str] = field(default_factory=Counter)
    by_key: Counter[str] = field(default_factory=Counter)
    events: int = 0
    heads: int = 0
    warnings: list[str] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        # Limited by kind, so that many missing keys never crowd out a tampered row.
        self.kinds[finding.kind] += 1
        if self.kinds[finding.kind] <= MAX_FINDINGS:
            self.findings.append(finding)
        else:
            self.omitted[finding.kind] += 1

    def add_all(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.add(finding)

    def report(self, level: OpenLevel, seconds: float) -> VerifyReport:
        """The report of these counts and findings. `seconds`: how long the verification took."""
        return VerifyReport(
            level=level,
            events=self.events,
            heads=self.heads,
            by_key=dict(sorted(self.by_key.items())),
            findings=tuple(self.findings),
            omitted=self.omitted.total(),
            seconds=seconds,
            warnings=tuple(self.warnings),
            omitted_by_kind=dict(sorted(self.omitted.items())),
        )
