"""The last step into a sandbox: Landlock, then the command.  It runs inside, by itself.

This file is run as a script, with nothing but the standard library, by whatever Python the sandbox
has.  Arguments: a file with the command's environment, the signals to take as usual (numbers with
commas between), how many processes there may be (0 for no bound), the directories to write to,
``--``, and the command.  Landlock (landlock(7)) says once more, and for good, what the mounts say
already: read everything here, write to these.  Of descriptors only the usual three pass.
"""

import ctypes
import os
import resource
import signal
import struct
import sys

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every machine
_VERSION, _PATH_BENEATH = 1, 1
_READ = 0b1101  # execute, read files, read directories
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights there are by ABI; 16 from the fifth on
_MOST_DESCRIPTORS = 1 << 30
_NOT_FOUND, _NOT_RUNNABLE, _NOT_MADE = 127, 126, 2


def main(arguments: list[str]) -> None:
    """Restrict this process and become the command.

    Exits 127 or 126 when the command cannot be run, 2 when the restrictions cannot be had.
    """
    split = arguments.index("--")
    place, signals, processes, *writable = arguments[:split]
    command = arguments[split + 1 :]
    os.closerange(3, _MOST_DESCRIPTORS)
    try:
        environment = variables(place)
        for number in filter(None, signals.split(",")):
            signal.signal(int(number), signal.SIG_DFL)
        if processes != "0":
            resource.setrlimit(resource.RLIMIT_NPROC, (int(processes), int(processes)))
        restrict(writable)
    except (OSError, ValueError) as error:
        say(f"the sandbox could not be closed: {error}")
        sys.exit(_NOT_MADE)
    try:
        if not command[0]:
            raise FileNotFoundError
        os.execvpe(command[0], command, environment)  # noqa: S606
    except FileNotFoundError:
        name = command[0] or "''"
        say(f"{name} is not there, or not in the sandbox's view; --ro DIR adds to it")
        sys.exit(_NOT_FOUND)
    except OSError as error:
        say(f"{command[0]}: {error.strerror}")
        sys.exit(_NOT_RUNNABLE)


def variables(place: str) -> dict[bytes, bytes]:
    """Return the environment that a file holds: NAME=VALUE with NULs between."""
    with open(place, "rb") as file:
        found = [one.partition(b"=") for one in file.read().split(b"\0")]
    return {key: value for key, equals, value in found if equals}


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
