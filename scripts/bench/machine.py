"""The machine of the figures, without names of hosts and without paths."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import tempfile
import time
from importlib import metadata
from typing import Any

import asyncpg

from floors import driver_url
from places import Place

__all__ = ["describe", "version"]


def describe() -> dict[str, Any]:
    """Describe the machine. Its flush bounds every durable write."""
    return {
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "flush_microseconds": round(_flush()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cryptography": metadata.version("cryptography"),
        "eventsourcing": metadata.version("eventsourcing"),
    }


def _flush() -> float:
    """Median microseconds of one fdatasync after a page was written."""
    taken = []
    with tempfile.TemporaryFile() as file:
        number = file.fileno()
        for _ in range(100):
            os.write(number, bytes(4096))
            began = time.perf_counter()
            os.fsync(number) if not hasattr(os, "fdatasync") else os.fdatasync(number)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


async def version(place: Place) -> str:
    """Return the version of the database."""
    if place.database == "sqlite":
        return sqlite3.sqlite_version
    connection = await asyncpg.connect(driver_url(place.empty("version")))
    try:
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()
