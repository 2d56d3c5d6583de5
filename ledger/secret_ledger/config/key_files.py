"""Key files: checked before they are read, and minted once, for development only.

The check and the read use the same file descriptor, so nobody can swap the file between them.
The paths of settings lie in a `Secret`: a key pasted in place of a path is a common slip. The key
must not show in a message or in a traceback's locals.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import shlex
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from secret_ledger.errors import InsecureKeyFile, InvalidKey
from secret_ledger.model.keys import Key
from secret_ledger.model.secret import Secret

__all__ = [
    "DEV_MARK",
    "MAX_FILE_BYTES",
    "KeyFile",
    "dev_key_line",
    "is_dev_minted",
    "local_key",
    "open_to_others",
    "read_file",
    "write_key_file",
]

MAX_FILE_BYTES: Final = 64 * 1024
DEV_MARK: Final = "# secret-ledger development key"
"""The beginning of a minted file. It marks the file, whichever setting names the file."""

_DEV_COMMENT: Final = f"{DEV_MARK}: minted by OS_SECRET_MODE=development, refused in production\n"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file to read, and its names in messages and hints."""

    path: Secret
    name: str
    """The name in messages: the setting that names the file, or a path that is no secret."""
    shell: str
    """The name in hints: the path as a shell takes it, such as `"$OS_SECRET_KEY_FILE"`."""

    @classmethod
    def at(cls, path: Path) -> KeyFile:
        """A file whose path may be shown."""
        return cls(Secret(os.fsencode(path)), ascii(str(path)), shlex.quote(str(path)))


def read_file(
    file: KeyFile,
    *,
    private: bool,
    credentials: str | None = None,
    missing_ok: bool = False,
) -> Secret | None:
    """The text of a regular file of at most 64 KiB of UTF-8.

    Returns None if the file is missing and `missing_ok` is true. A `private` file must be closed
    to group and others. Two places are exempt: a read-only mount, because container platforms set
    their own modes, and the directory `credentials`, which systemd sets. Raises InsecureKeyFile
    if the file is open to others, is no regular file, or can't be read. Raises InvalidKey if its
    content is too long or no UTF-8 text.
    """
    problem = 0
    fd = -1
    try:
        # Non-blocking: otherwise the open of a FIFO waits for a writer.
        fd = os.open(file.path.reveal(), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        problem = error.errno or errno.EIO
    except ValueError:  # a NUL in the path
        problem = errno.ENOENT
    if problem == errno.ENOENT and missing_ok:
        return None
    if problem:
        raise _unreadable(file, problem)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise InsecureKeyFile(
                f"{file.name} is no regular file",
                hint="give a regular file, or a symbolic link to one",
                file=file.name,
            )
        if private and status.st_mode & _OTHERS and not _exempt(fd, file, status, credentials):
            raise InsecureKeyFile(
                f"{file.name} is open to group or others"
                f" (mode {stat.S_IMODE(status.st_mode):04o}); 0600 or stricter is accepted",
                hint=_way_to_close(file, status),
                file=file.name,
            )
        text = _read(fd, file)
    finally:
        os.close(fd)
    return text


def is_dev_minted(text: Secret) -> bool:
    """Whether `text` is the content of a file that `local_key` minted."""
    return DEV_MARK.encode() in text.reveal()


def dev_key_line(text: Secret) -> Secret:
    """A minted file's content without its comment line."""
    return Secret(text.reveal().partition(b"\n")[2])


def local_key(home: Path, key_id: str | None = None) -> Key:
    """The development key in the directory `home`. Mints a key if the directory has none.

    If several processes race, one key wins and all of them get it. An existing file is never
    overwritten. Raises InsecureKeyFile if the file can't be read or written safely. Raises
    InvalidKey if the file is not as it was minted.
    """
    file = KeyFile.at(home / "dev-key")
    text = read_file(file, private=True, missing_ok=True)
    if text is None:
        _mint(home, file)
        text = read_file(file, private=True)
    _check_directory(home)
    if text is None or not text.reveal().startswith(DEV_MARK.encode()):
        raise _corrupt(file, "it does not begin with the comment of a minted key")
    try:
        return Key.parse(dev_key_line(text), key_id)
    except InvalidKey as error:
        problem = error.message
    raise _corrupt(file, problem)


def open_to_others(mode: int) -> bool:
    """Whether `mode` opens a file to its group or to others. Such a file must hold no key."""
    return bool(mode & _OTHERS)


def write_key_file(path: Path, key: Key) -> Path:
    """Write `key` into a new file that only its owner can read. Returns the file's full path.

    The file is synced, so that it outlives a power cut. An existing file is never overwritten.
    Raises InsecureKeyFile if the file can't be written whole, or if its file system doesn't keep
    the mode. Then no new file is left.
    """
    made = False
    problem = ""
    try:
        path = path.absolute()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        made = True
        with os.fdopen(fd, "wb") as out:
            if open_to_others(os.fstat(fd).st_mode):
                problem = "its file system makes it open to others"
            else:
                out.write(key.text().reveal() + b"\n")
                out.flush()
                os.fsync(fd)
    except OSError as error:
        problem = os.strerror(error.errno or errno.EIO)
    except ValueError:  # a NUL in the path
        problem = os.strerror(errno.ENOENT)
    if not problem:
        _sync_directory(path.parent)
        return path
    if made:
        with contextlib.suppress(OSError):
            path.unlink()
    # The message does not repeat the path: a key in its place is a likely slip.
    raise InsecureKeyFile(
        f"the key file can't be made: {problem}",
        hint="name a file that is not there yet, in a directory that this process can write to",
    )


def _mint(home: Path, file: KeyFile) -> None:
    """Writes `dev-key` whole or not at all. If another process came first, its key stays."""
    problem, temporary = 0, None
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_directory(home)
        fd, name = tempfile.mkstemp(dir=home, prefix=".dev-key-")  # 0600, exclusive
        temporary = Path(name)
        with os.fdopen(fd, "wb") as out:
            out.write(_DEV_COMMENT.encode() + Key.generate().text().reveal() + b"\n")
            out.flush()
            os.fsync(out.fileno())
        # A link, unlike a rename, never replaces a file: the first of several processes wins.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file.path.reveal())
        _sync_directory(home)
    except OSError as error:
        problem = error.errno or errno.EIO
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
    if problem:
        raise InsecureKeyFile(
            f"no development key can be minted at {file.name}: {os.strerror(problem)}",
            hint="make that directory writable, or name another one in OS_SECRET_HOME",
            file=file.name,
        )


def _check_directory(home: Path) -> None:
    """If others can write to the directory, they can put another key into it."""
    if home.stat().st_mode & _OTHERS_WRITE:
        raise InsecureKeyFile(
            f"group or others can write to the directory {str(home)!a} of the development key",
            hint=f"chmod 700 {shlex.quote(str(home))}",
            file=ascii(str(home)),
        )


def _sync_directory(path: Path) -> None:
    """Makes a new name in a directory outlive a power cut, if the file system supports that."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _read(fd: int, file: KeyFile) -> Secret:
    problem, raw = 0, Secret(b"")
    try:
        with os.fdopen(fd, "rb", closefd=False) as opened:
            raw = Secret(opened.read(MAX_FILE_BYTES + 1))
    except OSError as error:
        problem = error.errno or errno.EIO
    if problem:
        raise _unreadable(file, problem)
    hint = "write only the setting's value into the file"
    if raw.reveal().startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InvalidKey(
            f"{file.name} is UTF-16 text",
            hint="PowerShell's > makes such files; write it anew as UTF-8 (for a key:"
            " secret-ledger keygen --file FILE)",
        )
    if len(raw.reveal()) > MAX_FILE_BYTES:
        raise InvalidKey(f"{file.name} has more than {MAX_FILE_BYTES} bytes", hint=hint)
    try:
        raw.reveal().decode()
    except UnicodeDecodeError:
        pass  # this error carries the bytes, so it must not become the context of InvalidKey
    else:
        return raw
    raise InvalidKey(f"{file.name} is not UTF-8 text", hint=hint)


def _exempt(fd: int, file: KeyFile, status: os.stat_result, credentials: str | None) -> bool:
    """The platform, not the operator, sets the mode on a read-only mount or in `credentials`."""
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        return True
    if credentials is None or not Path(credentials).is_absolute():
        return False
    with contextlib.suppress(OSError):
        resolved = Path(os.fsdecode(file.path.reveal())).resolve()
        # The path may have been swapped since it was opened.
        return resolved.is_relative_to(Path(credentials).resolve()) and os.path.samestat(
            resolved.stat(), status
        )
    return False


def _way_to_close(file: KeyFile, status: os.stat_result) -> str:
    own = os.geteuid()
    if own in (0, status.st_uid):
        return f"chmod 600 {file.shell}"
    # Only the owner can close the file, and would lock this process out.
    return (
        f"the file belongs to user {status.st_uid}, and this process runs as user {own}: as root,"
        f" chown {own} {file.shell} && chmod 600 {file.shell}; or give this process a file of its"
        " own"
    )


def _unreadable(file: KeyFile, problem: int) -> InsecureKeyFile:
    return InsecureKeyFile(
        f"{file.name} can't be read: {os.strerror(problem)}",
        hint=f"see that this process can read it: ls -lL {file.shell}",
        file=file.name,
    )


def _corrupt(file: KeyFile, problem: str) -> InvalidKey:
    return InvalidKey(
        f"the development key {file.name} is damaged: {problem}",
        hint=f"restore the file from its copy; only if nothing is stored under its key, delete it"
        f" (rm {file.shell}): then a new key is minted",
        file=file.name,
    )
