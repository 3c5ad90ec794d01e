"""Landlock, with which a Linux process gives up access to files, TCP and other processes, for good and without
privileges.

The names and numbers are those of <linux/landlock.h> and are the same on every architecture. What each ABI of the
kernel knows: https://docs.kernel.org/userspace-api/landlock.html.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3
# Bits of access to files that an ABI knows: REFER came with 2, TRUNCATE with 3, IOCTL_DEV with 5.
FILE_BITS = {1: 13, 2: 14, 3: 15, 4: 15}
NEWEST_FILE_BITS = 16
BIND_AND_CONNECT_TCP = 0b11  # from ABI 4 on
SCOPE_ABSTRACT_UNIX_SOCKET_AND_SIGNAL = 0b11  # from ABI 6 on
WHOLE = 6  # the first ABI that knows all of these


def abi() -> int:
    """Return the ABI of this kernel, from 1 on. Raises OSError if it has no Landlock or does not allow its use."""
    return _call(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)


def restrict(readable: Iterable[Path], executable: Iterable[Path] = ()) -> None:
    """Leave this process, from now on, only reading of these files and folders, and becoming one of these programs;
    those that do not exist are left out.

    Files that are already open stay so. It must have set PR_SET_NO_NEW_PRIVS. Raises OSError.
    """
    version = abi()
    handled = (1 << FILE_BITS.get(version, NEWEST_FILE_BITS)) - 1
    tcp = BIND_AND_CONNECT_TCP if version >= 4 else 0
    scope = SCOPE_ABSTRACT_UNIX_SOCKET_AND_SIGNAL if version >= WHOLE else 0
    attributes = struct.pack("QQQ", handled, tcp, scope)  # older kernels accept the fields that they lack if they are 0
    ruleset = _call(CREATE_RULESET, attributes, len(attributes), 0)
    for path in readable:
        with suppress(FileNotFoundError, NotADirectoryError):
            _allow(ruleset, path, READ_FILE | READ_DIR)
    for path in executable:
        with suppress(FileNotFoundError, NotADirectoryError):
            _allow(ruleset, path, READ_FILE | EXECUTE)
    _call(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> None:
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not stat.S_ISDIR(os.fstat(file).st_mode):
        access &= ~READ_DIR
    _call(ADD_RULE, ruleset, RULE_PATH_BENEATH, struct.pack("=Qi", access, file), 0)
    os.close(file)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
