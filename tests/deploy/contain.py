"""Runs one program as a container runtime would: `python -m tests.deploy.contain SPEC`, as root. Standard library only.

Namespaces of its own for mounts, network, processes and IPC; a root file system that is read-only but for the mounts
that the spec calls writable; an account without rights or capabilities, and no way to get any. The program is process
1. Prints that process's id as seen from outside, hands SIGTERM on, and exits as it did.

The spec: root (a folder, becomes `/`), mounts ([source, target, "ro" | "rw"]), tmpfs ([target]), uid, cwd, env, argv;
network (a namespace to join; none: one of its own);
calls and families (see seccomp.py; without calls there is no filter), proc (options of its mount).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.deploy.seccomp import confine

# <linux/sched.h>, <linux/prctl.h>, <linux/sockios.h>, <net/if.h>
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x8000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
DEVICES = ("null", "zero", "full", "random", "urandom")

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def build(spec: dict[str, Any]) -> None:
    """The root file system, in this mount namespace alone."""
    root = Path(spec["root"])
    mount("--make-rprivate", "/")
    mount("--bind", str(root), str(root))
    # First, as what is mounted may lie below them: a checkout in /tmp.
    for target in spec["tmpfs"]:
        place = root / target.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(place))
    devices = [[f"/dev/{name}", f"/dev/{name}", "rw"] for name in DEVICES]
    for source, target, mode in [*spec["mounts"], *devices]:
        place = root / target.lstrip("/")
        if Path(source).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        mount("--bind", source, str(place))
        if mode == "ro":
            mount("-o", "remount,bind,ro", str(place))
    (root / "proc").mkdir(exist_ok=True)
    mount("-t", "proc", "-o", spec["proc"], "proc", str(root / "proc"))
    mount("-o", "remount,bind,ro", str(root))


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def become(spec: dict[str, Any]) -> None:
    os.chroot(spec["root"])
    os.chdir(spec["cwd"])
    os.setgroups([])
    os.setresgid(spec["uid"], spec["uid"], spec["uid"])
    os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if spec["calls"]:
        confine(spec["calls"], spec["families"])
    os.execve(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606  # becoming it is the point


def main(path: str) -> int:
    spec = json.loads(Path(path).read_text())
    checked(libc.unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID))
    if spec["network"]:
        with Path(spec["network"]).open("rb") as namespace:
            checked(libc.setns(namespace.fileno(), CLONE_NEWNET))
    else:
        checked(libc.unshare(CLONE_NEWNET))
    child = os.fork()
    if child == 0:
        build(spec)
        loopback_up()
        become(spec)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    print(child, flush=True)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
