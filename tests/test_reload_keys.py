"""Keys that change under a running process: taken if the gate lets them pass, else not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ledgers import NEW, OLD, STRANGER, opened
from log_builder import building
from secret_ledger import (
    EnvKeyProvider,
    InvalidKey,
    Key,
    KeyFingerprintMismatch,
    Keyring,
    MissingKey,
    SecretLedger,
    StaleKey,
)
from waiting import until


class Provided:
    """A provider whose keys a test exchanges."""

    def __init__(self, *keys: Key) -> None:
        self.give(*keys)

    def give(self, *keys: Key) -> None:
        self._keyring = Keyring.of(keys[0], keys[1:])

    async def keyring(self) -> Keyring:
        return self._keyring


@asynccontextmanager
async def open_with(url: str, provider: Provided) -> AsyncIterator[SecretLedger]:
    async with SecretLedger.open(url, provider) as ledger:
        yield ledger


async def has(
    ledger: SecretLedger, *, state: str | None = None, pending: bool | None = None
) -> bool:
    health = await ledger.health()
    return state in (None, health.state) and pending in (
        None,
        health.pending_fingerprint is not None,
    )


async def test_a_new_key_is_taken_and_announced_and_can_be_rotated_to(database_url: str) -> None:
    keys = Provided(OLD)
    async with open_with(database_url, keys) as ledger:
        assert not await ledger.reload_keys()
        keys.give(NEW, OLD)
        assert await ledger.reload_keys()
        (node,) = await ledger.nodes()
        assert node.pending_id == "k-new"
        assert (await ledger.put("a", "1")).key_id == "k-old"
        assert (await ledger.rotate()).key_id == "k-new"
        assert (await ledger.put("a", "2")).key_id == "k-new"


async def test_a_stale_node_is_ready_again_with_the_key_that_it_missed(database_url: str) -> None:
    keys = Provided(OLD)
    async with building(database_url, OLD) as log, open_with(database_url, keys) as ledger:
        await ledger.put("a", "1")
        await log.rotate(NEW)
        with pytest.raises(StaleKey):
            await ledger.put("a", "2")
        assert not (await ledger.health()).ready
        keys.give(NEW, OLD)
        await ledger.reload_keys()
        assert (await ledger.health()).ready
        assert (await ledger.put("a", "3")).version == 2
        (node,) = [n for n in await ledger.nodes() if n.state == "live"]
        assert (node.key_id, node.differs, node.reason) == ("k-new", False, "")


async def test_a_stale_node_says_so_in_its_line(database_url: str) -> None:
    async with building(database_url, OLD) as log, opened(database_url, OLD) as ledger:
        await log.rotate(NEW)
        await ledger._session.announce()
        (node,) = await ledger.nodes()
        assert (node.state, node.reason, node.differs) == ("live", "stale_key", True)


async def test_a_keyring_that_the_gate_refuses_changes_nothing(database_url: str) -> None:
    keys = Provided(OLD)
    async with open_with(database_url, keys) as ledger:
        await ledger.put("a", "1")
        for given, kind in (
            ((STRANGER,), KeyFingerprintMismatch),
            ((Key.from_bytes(bytes(range(9, 41)), "k-old"),), KeyFingerprintMismatch),
        ):
            keys.give(*given)
            with pytest.raises(kind):
                await ledger.reload_keys()
            assert ledger.keyring == Keyring.of(OLD)
            assert (await ledger.get("a")).value.reveal() == b"1"
            assert (await ledger.put("a", "1")).key_id == "k-old"
        await ledger.rotate(NEW)
        keys.give(NEW)  # the head of "a" lies under the old key still
        with pytest.raises(MissingKey):
            await ledger.reload_keys()
        assert (await ledger.get("a")).value.reveal() == b"1"
        await ledger.rekey()
        assert await ledger.reload_keys()
        with pytest.raises(MissingKey):
            await ledger.get("a", version=1)


async def test_a_fixed_keyring_is_exchanged_by_hand_only(database_url: str) -> None:
    async with opened(database_url, OLD) as ledger:
        with pytest.raises(InvalidKey, match="fixed Keyring"):
            await ledger.reload_keys()
        assert await ledger.reload_keys(Keyring.of(NEW, [OLD]))
        assert not await ledger.reload_keys(Keyring.of(NEW, [OLD]))
    with pytest.raises(InvalidKey, match="can't be watched"):
        async with opened(database_url, OLD, watch_keys=1.0):
            pass


async def test_an_ephemeral_keyring_is_not_taken_into_a_database_that_stays(
    database_url: str,
) -> None:
    async with opened(database_url, OLD) as ledger:
        with pytest.raises(InvalidKey, match="ephemeral"):
            await ledger.reload_keys(Keyring.ephemeral())


async def test_a_watched_key_file_is_taken_when_its_mount_is_linked_anew(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Kubernetes does it: the file's folder is a link, which is exchanged."""

    def release(name: str, key: str, previous: str | None) -> None:
        folder = tmp_path / name
        folder.mkdir(mode=0o700)
        for file, text in (("key", key), ("previous", previous)):
            (folder / file).write_text(text or "")
            (folder / file).chmod(0o600)
        link = tmp_path / "new-link"
        link.symlink_to(folder)
        link.replace(tmp_path / "keys")

    old, new = (Key.generate().text().reveal_text() for _ in range(2))
    release("one", old, old)
    monkeypatch.setenv("OS_SECRET_KEY_FILE", str(tmp_path / "keys" / "key"))
    monkeypatch.setenv("OS_SECRET_PREVIOUS_KEYS_FILE", str(tmp_path / "keys" / "previous"))
    async with SecretLedger.open(sqlite_url, EnvKeyProvider(), watch_keys=0.01) as ledger:
        assert (await ledger.health()).pending_fingerprint is None
        release("two", new, old)
        await until(lambda: has(ledger, pending=True))
        assert (await ledger.rotate()).changed

        (tmp_path / "keys" / "key").write_text("junk")
        await until(lambda: has(ledger, state="degraded"))
        (reason,) = (await ledger.health()).reasons
        assert reason.startswith("keys: invalid_key")
        assert "junk" not in reason
        assert (await ledger.put("a", "1")).version == 1


async def test_a_provider_that_fails_degrades_and_its_message_is_not_shown(
    sqlite_url: str,
) -> None:
    class Failing(Provided):
        async def keyring(self) -> Keyring:
            if self.broken:
                raise OSError("vault said: s3cr3t-in-a-message")
            return await super().keyring()

        broken = False

    keys = Failing(OLD)
    async with SecretLedger.open(sqlite_url, keys, watch_keys=0.01) as ledger:
        keys.broken = True
        await until(lambda: has(ledger, state="degraded"))
        assert (await ledger.health()).reasons == ("keys: the key provider failed (OSError)",)
        keys.broken = False
        await until(lambda: has(ledger, state="ready"))
