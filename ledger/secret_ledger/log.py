"""Where the library's log events go: to the host's structlog, else to standard `logging`.

The library configures nothing. If nobody configures structlog, it prints to stdout and corrupts
piped output. So until the host configures it, events go to the logger `secret_ledger`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

__all__ = ["log"]


class _Log:
    """Chooses at each call: the host may configure structlog after the import."""

    def info(self, event: str, **facts: Any) -> None:
        self._emit(logging.INFO, event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        self._emit(logging.WARNING, event, facts)

    def error(self, event: str, **facts: Any) -> None:
        self._emit(logging.ERROR, event, facts)

    def _emit(self, level: int, event: str, facts: dict[str, Any]) -> None:
        # A host that has configured structlog has imported it. Other hosts never load it.
        structlog = sys.modules.get("structlog")
        if structlog is not None and structlog.is_configured():
            structlog.get_logger("secret_ledger").log(level, event, **facts)
            return
        shown = " ".join(f"{name}={value!r}" for name, value in facts.items())
        logging.getLogger("secret_ledger").log(level, "%s %s", event, shown)


log = _Log()
logging.getLogger("secret_ledger").addHandler(logging.NullHandler())
