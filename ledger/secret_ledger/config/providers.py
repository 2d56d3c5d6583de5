"""Providers of root keys: the settings, and this machine's development key."""

from __future__ import annotations

import os
from collections.abc import Mapping

import anyio.to_thread

from secret_ledger.config.environment import NO_KEY_HINT, Environment, keys_from_env, mode
from secret_ledger.config.key_files import local_key
from secret_ledger.config.keyring import Keyring
from secret_ledger.config.settings import MODE, absolute_directory, home_directory
from secret_ledger.errors import NoStableKey

__all__ = ["EnvKeyProvider", "LocalKeyProvider"]


class EnvKeyProvider:
    """Root keys from the `OS_SECRET_…` settings: the provider for production.

    `environ` is the process's environment by default. It is read when the ledger opens.
    """

    __slots__ = ("_settings",)

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._settings = Environment(os.environ if environ is None else environ)

    async def keyring(self) -> Keyring:
        """The keyring of the settings; raises as `keys_from_env`."""
        return Keyring.of(*await anyio.to_thread.run_sync(keys_from_env, self._settings))


class LocalKeyProvider:
    """One key for this machine, minted in `home` on first use: for development only.

    `home` is an absolute directory. By default it is `OS_SECRET_HOME`, else `~/.secret-ledger`.
    """

    __slots__ = ("_home", "_settings")

    def __init__(
        self, home: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self._home = None if home is None else os.fspath(home)
        self._settings = Environment(os.environ if environ is None else environ)

    async def keyring(self) -> Keyring:
        """The machine's development key. Raises NoStableKey unless the mode is development."""
        return await anyio.to_thread.run_sync(self._keyring)

    def _keyring(self) -> Keyring:
        # A container without a volume would mint a new key at each start. So production refuses
        # this provider, in case it was left in the code of a deployment.
        if mode(self._settings) != "development":
            raise NoStableKey(
                f"a local development key is for {MODE}=development only", hint=NO_KEY_HINT
            )
        home = (
            home_directory(self._settings)
            if self._home is None
            else absolute_directory(self._home, "home")
        )
        return Keyring.of(local_key(home))
