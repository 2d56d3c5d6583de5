"""What a frozen program needs of the command line: every verb, if its dependencies are there."""

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("secret_ledger.cli")
