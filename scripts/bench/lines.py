"""A process that works for a benchmark, and the lines of JSON that it exchanges with its parent."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

__all__ = ["Child", "answer", "asked", "child"]


class Child:
    """The process, as its parent sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def tell(self, word: Any) -> Any:
        """Send a word, and return the answer. Raises RuntimeError if the process has ended."""
        told, answers = self._process.stdin, self._process.stdout
        if told is None or answers is None:
            raise RuntimeError("a working process has no pipes")
        told.write(json.dumps(word).encode() + b"\n")
        line = await answers.readline()
        if not line:
            raise RuntimeError("a working process has ended")
        return json.loads(line)


@asynccontextmanager
async def child(
    program: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """Start a Python program. It ends when its input is closed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, stdin=pipe, stdout=pipe, env=environment
    )
    try:
        yield Child(process)
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# --- in the child --------------------------------------------------------------------


async def asked() -> Any:
    """Return the parent's next word; None at the end of the input."""
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return json.loads(line) if line else None


def answer(word: Any) -> None:
    """Send `word` to the parent as the answer."""
    print(json.dumps(word), flush=True)
