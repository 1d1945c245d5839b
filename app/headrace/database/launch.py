"""Become another program that dies with its parent, even when the parent is killed with -9.

Run as a script (`python -I -S launch.py PARENT SIGNAL IDENTITY PROGRAM ARGUMENT...`), not as a `preexec_fn`: a process
with threads cannot enter a user namespace, and code between fork and exec can deadlock. It imports nothing of ours.

IDENTITY says as whom the program runs, since PostgreSQL refuses to run as root:

- `same`: as it is.
- `namespace`: as root under another number (a user namespace of one id), so that files stay root's and no permission
  changes anywhere.
- `nobody`: as the user with `NOBODY`'s id, if namespaces are refused (seccomp, sysctl).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

NOBODY = 65534
_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1


def command(identity: str, program: list[str], death_signal: signal.Signals = signal.SIGQUIT) -> list[str]:
    """Return the command line that runs the program so. Spawn it from a thread that lives as long as the program may:
    Linux sends the signal when the spawning *thread* ends."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(death_signal)), identity, *program]


def main(arguments: list[str]) -> None:
    """Change identity, tie this process to its parent, become the program."""
    parent, death_signal, identity, *program = arguments
    if identity == "namespace":
        _enter_namespace()
    elif identity == "nobody":
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if sys.platform == "linux":
        # After the change of identity, which clears it.
        _call("prctl", _PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent):
            sys.exit("the parent is gone already")
    os.execv(program[0], program)


def _enter_namespace() -> None:
    _call("unshare", _CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} 0 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} 0 1")


def _call(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
