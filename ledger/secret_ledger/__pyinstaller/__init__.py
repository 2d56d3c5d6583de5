"""Tells PyInstaller where the hooks of this package lie (entry point group `pyinstaller40`).

PyInstaller runs `hook-X.py` when a program that it freezes imports X.
"""

from pathlib import Path

__all__ = ["get_hook_dirs"]


def get_hook_dirs() -> list[str]:
    """The folder of the hooks: this one."""
    return [str(Path(__file__).parent)]
