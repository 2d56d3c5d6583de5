"""Working without the rights over all files that root has, for tests that run as root."""

from __future__ import annotations

import asyncio
import ctypes
import struct
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

T = TypeVar("T")

_VERSION_3: Final = 0x20080522


async def without_rights(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `work` in a thread, and in threads that it starts, to which a file's mode applies."""

    def run() -> T:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.capset(struct.pack("Ii", _VERSION_3, 0), bytes(24)) != 0:
            raise OSError(ctypes.get_errno(), "no capability can be given up")
        return asyncio.run(work())

    with ThreadPoolExecutor(1) as own:
        return await asyncio.get_running_loop().run_in_executor(own, run)
