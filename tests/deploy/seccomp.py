"""What a unit's SystemCallFilter=, MemoryDenyWriteExecute= and RestrictAddressFamilies= do, done with libseccomp.

systemd itself makes these filters with that library (src/shared/seccomp-util.c). Standard library only: used by
`contain.py`. A filter holds for this process and all that it starts.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Sequence

ALLOW, ERRNO = 0x7FFF0000, 0x00050000  # <seccomp.h>: SCMP_ACT_ALLOW, SCMP_ACT_ERRNO
MASKED_EQ, EQ, GT = 7, 4, 6  # SCMP_CMP_MASKED_EQ, SCMP_CMP_EQ, SCMP_CMP_GT
PROT_WRITE, PROT_EXEC, SHM_EXEC = 0x2, 0x4, 0o100000  # <sys/mman.h>, <sys/shm.h>
UNKNOWN = -1  # __NR_SCMP_ERROR: no such call on this machine


class Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


class Filter:
    """`action`: what happens to calls without a rule."""

    def __init__(self, action: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._filter = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(action)))

    def rule(self, action: int, call: str, *comparisons: Comparison) -> None:
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number == UNKNOWN:
            return
        wanted = (Comparison * len(comparisons))(*comparisons)
        added = self._library.seccomp_rule_add_array(
            self._filter, ctypes.c_uint32(action), number, len(comparisons), wanted
        )
        if added not in (0, -errno.EDOM, -errno.EEXIST):  # a call that this architecture has only by another name
            raise OSError(-added, f"seccomp rule for {call}")

    def load(self) -> None:
        if failed := self._library.seccomp_load(self._filter):
            raise OSError(-failed, "seccomp_load")


def confine(calls: Sequence[str], families: Sequence[int]) -> None:
    """Only `calls` are allowed, only sockets of `families`; and no memory is ever both writable and executable."""
    denied = ERRNO | errno.EPERM
    first = Filter(ALLOW)
    both = PROT_WRITE | PROT_EXEC
    first.rule(denied, "mmap", Comparison(2, MASKED_EQ, both, both))
    for call in ("mprotect", "pkey_mprotect"):
        first.rule(denied, call, Comparison(2, MASKED_EQ, PROT_EXEC, PROT_EXEC))
    first.rule(denied, "shmat", Comparison(2, MASKED_EQ, SHM_EXEC, SHM_EXEC))
    unsupported = ERRNO | errno.EAFNOSUPPORT
    for family in range(max(families)):
        if family not in families:
            first.rule(unsupported, "socket", Comparison(0, EQ, family, 0))
    first.rule(unsupported, "socket", Comparison(0, GT, max(families), 0))
    second = Filter(denied)
    for call in {*calls, "execve"}:
        second.rule(ALLOW, call)
    # The kernel takes the stricter of the two. The first denies nothing that loading the second needs.
    first.load()
    second.load()
