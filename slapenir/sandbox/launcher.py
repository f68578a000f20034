"""The last step into a sandbox: Landlock, then the command.  It runs inside, by itself.

This file is run as a script, with nothing but the standard library, by whatever Python the sandbox
has.  Arguments: the signals to take as usual (numbers with commas between), the directories to
write to, ``--``, and the command.  Landlock (landlock(7)) says once more, and for good, what the
mounts say already: read everything here, write to these.  Of descriptors only the usual three pass.
"""

import ctypes
import os
import signal
import struct
import sys

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every machine
_VERSION, _PATH_BENEATH = 1, 1
_READ = 0b1101  # execute, read files, read directories
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights there are by ABI; 16 from the fifth on
_MOST_DESCRIPTORS = 1 << 30
_NOT_FOUND, _NOT_RUNNABLE = 127, 126


def main(arguments: list[str]) -> None:
    """Restrict this process and become the command; exits 127 or 126 when that cannot be."""
    split = arguments.index("--")
    for number in filter(None, arguments[0].split(",")):
        signal.signal(int(number), signal.SIG_DFL)
    restrict(arguments[1:split])
    command = arguments[split + 1 :]
    os.closerange(3, _MOST_DESCRIPTORS)
    try:
        os.execvp(command[0], command)  # noqa: S606
    except FileNotFoundError:
        say(f"{command[0]} is not there, or not in the sandbox's view; --ro DIR adds to it")
        sys.exit(_NOT_FOUND)
    except OSError as error:
        say(f"{command[0]}: {error.strerror}")
        sys.exit(_NOT_RUNNABLE)


def say(text: str) -> None:
    """Tell the person at the terminal."""
    sys.stderr.write(f"slapenir run: {text}\n")


def restrict(writable: list[str]) -> bool:
    """Apply Landlock where the kernel has it; return whether it has."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)
    if abi < 1:
        return False
    every = (1 << _RIGHTS.get(abi, 16)) - 1
    attributes = struct.pack("=Q", every)
    if abi >= 6:  # nothing about ports; signals and abstract sockets stay inside
        attributes = struct.pack("=QQQ", every, 0, 0b11)
    ruleset = libc.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for path, rights in [("/", _READ), *((one, every) for one in writable)]:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights, beneath)
        if libc.syscall(_ADD, ruleset, _PATH_BENEATH, rule, 0):
            raise OSError(ctypes.get_errno(), "landlock_add_rule")
        os.close(beneath)
    if libc.syscall(_RESTRICT, ruleset, 0):
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(ruleset)
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
