"""What a frozen program needs of the library, beyond the imports that PyInstaller sees.

The command line has a hook of its own: a service that only embeds the library carries neither
the verbs nor their dependencies.
"""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

_LEFT_OUT = (
    "secret_ledger.cli",
    "secret_ledger.__main__",
    "secret_ledger.__pyinstaller",
    "asyncpg._testbase",  # it imports unittest
)


def _wanted(module: str) -> bool:
    return not any(module == name or module.startswith(f"{name}.") for name in _LEFT_OUT)


hiddenimports = [
    # `ledger.__getattr__` imports its modules by their names.
    *collect_submodules("secret_ledger", filter=_wanted),
    *collect_submodules("secret_ledger_projections"),
    # SQLAlchemy imports a database's driver by its name.
    "aiosqlite",
    *collect_submodules("asyncpg", filter=_wanted),
]
datas = [
    *collect_data_files("secret_ledger"),  # the schema's SQL, and what a catalogue is held against
    *collect_data_files("secret_ledger_projections"),
    *copy_metadata("secret-ledger"),  # a node announces its release
]
