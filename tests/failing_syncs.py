"""A disk that fails: every fsync of a thread ends in EIO from now on, as Linux would have it.

A filter of system calls needs no rights. It can't be taken away again, so it is for a process of
its own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

_FSYNC_AND_FDATASYNC: Final = {"x86_64": (74, 75), "aarch64": (82, 83)}
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def fail_syncs() -> None:
    """Let every fsync and fdatasync of the calling thread fail. Raises OSError if Linux won't."""
    steps = [(_LOAD, 0, 0, 0)]
    for number in _FSYNC_AND_FDATASYNC[os.uname().machine]:
        steps += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.EIO)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (_NO_NEW_PRIVILEGES, 1, 0, 0, 0),
        (_SECCOMP, _FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "no filter of system calls")
