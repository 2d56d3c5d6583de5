"""Where a canary could leak from an error: its text, its chain, and the frames behind it."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path

from inside import LedgerError

_LIBRARY = str(Path(__file__).parents[1] / "ledger" / "secret_ledger")


def shown_by(error: BaseException) -> str:
    """All that `error` shows: message, details, pickle, chain, and the library's locals.

    Locals of the tests' own frames are left out, for they hold the canary by design.
    """
    parts: list[str] = []
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        parts += [repr(one), str(one), repr(one.args), repr(getattr(one, "__dict__", {}))]
        parts += [repr(getattr(one, name, "")) for name in ("object", "doc", "filename")]
        if isinstance(one, LedgerError):
            parts.append(repr(pickle.dumps(one)))
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if frame.f_code.co_filename.startswith(_LIBRARY):
                parts += [f"{name}={value!r}" for name, value in frame.f_locals.items()]
        pending += [one.__cause__, one.__context__]
    return "\n".join(parts)
