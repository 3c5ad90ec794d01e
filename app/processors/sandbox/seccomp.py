"""seccomp, with which a Linux process gives up system calls, for good and without privileges.

The filter is a program of classic BPF that the kernel runs at each call, on a `struct seccomp_data` of
<linux/seccomp.h>. It names what is allowed; everything else fails with EPERM.
"""

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterator

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, REFUSE, KILL_PROCESS = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # BPF_LD+W+ABS, BPF_JMP+JEQ+K, BPF_JMP+JSET+K, BPF_RET+K
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in seccomp_data, whose arguments are of eight bytes

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_* of <linux/audit.h>
# What Python needs to import modules, read files, allocate memory and end: the number of each call on x86_64 and on
# aarch64, or None where there is none.
ALLOWED = {
    "read": (0, 63),
    "readv": (19, 65),
    "pread64": (17, 67),
    "write": (1, 64),
    "writev": (20, 66),
    "lseek": (8, 62),
    "close": (3, 57),
    "stat": (4, None),
    "lstat": (6, None),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "brk": (12, 214),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getcpu": (309, 168),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrandom": (318, 278),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
# Opening is allowed without any of these flags (the last one is O_TMPFILE without O_DIRECTORY).
WRITING = 0o3 | 0o100 | 0o1000 | 0o10000000 | 0o20000000  # O_ACCMODE, O_CREAT, O_TRUNC, O_PATH
OPEN = {"open": (2, None), "openat": (257, 56)}
OPEN_FLAGS = {"open": 1, "openat": 2}  # which argument they are
TGKILL = (234, 131)  # abort() sends a signal to its own process
# What a process with threads needs besides: to start one, to wait for another, and to wake it up. A pair of sockets is
# connected to itself, and nothing else.
WITH_THREADS = {
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
}
# What a process needs besides to become a program, and that to begin.
EXECUTING = {
    "execve": (59, 221),
    "access": (21, None),
    "faccessat": (None, 48),
    "set_tid_address": (218, 96),
}
ARCH_PRCTL, ARCH_SET_FS = (158, None), 0x1002
CLONE, CLONE3 = (56, 220), (435, 435)
CLONE_THREAD = 0x10000
SOCKETPAIR, AF_UNIX = (53, 199), 1
FCNTL, F_DUPFD_CLOEXEC = (72, 25), 1030
# C libraries fall back from clone3, whose flags are in memory that a filter cannot read, to clone.
UNKNOWN = 0x00050000 | errno.ENOSYS


def unavailable() -> str | None:
    """Say why this process cannot have a filter, or return None if it can."""
    machine = os.uname().machine
    if machine not in ARCHITECTURES or sys.maxsize < 2**32:
        return f"there is no filter for {machine}"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, None)  # sets none: there is no program at address 0
    number = ctypes.get_errno()
    return None if number == errno.EFAULT else os.strerror(number)


def restrict(*, threads: bool = False, executing: bool = False) -> None:
    """Install the filter, with `threads` one that lets the process start some, with `executing` one that lets it become
    a program. It must have set PR_SET_NO_NEW_PRIVS and have no other thread yet. Raises OSError."""
    code = program(os.uname().machine, os.getpid(), threads=threads, executing=executing)
    instructions = ctypes.create_string_buffer(code, len(code))
    pointer_to_program = struct.pack("HP", len(code) // 8, ctypes.addressof(instructions))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, pointer_to_program):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def program(machine: str, pid: int, *, threads: bool = False, executing: bool = False) -> bytes:
    """Return the filter for a machine and a process, in instructions of eight bytes each (`struct sock_filter`)."""
    instructions = _instructions(machine, pid, threads=threads, executing=executing)
    return b"".join(struct.pack("HBBI", *each) for each in instructions)


def _instructions(machine: str, pid: int, *, threads: bool, executing: bool) -> Iterator[tuple[int, int, int, int]]:
    """Yield (code, instructions to skip if true, instructions to skip if false, operand)."""
    column = list(ARCHITECTURES).index(machine)
    # The calls of i386, which an x86_64 process can make too, have other numbers. Those of x32 have a bit set that no
    # number here has.
    yield LOAD, 0, 0, ARCHITECTURE
    yield EQUAL, 1, 0, ARCHITECTURES[machine]
    yield RETURN, 0, 0, KILL_PROCESS
    yield LOAD, 0, 0, NUMBER
    for numbers in (ALLOWED | (WITH_THREADS if threads else {}) | (EXECUTING if executing else {})).values():
        if (number := numbers[column]) is not None:
            yield EQUAL, 0, 1, number
            yield RETURN, 0, 0, ALLOW
    for name, numbers in OPEN.items():
        if (number := numbers[column]) is not None:
            yield from _if(number, OPEN_FLAGS[name], (ANY_BIT, 1, 0, WRITING))
    yield from _if(TGKILL[column], 0, (EQUAL, 0, 1, pid))
    if threads:
        yield from _if(CLONE[column], 0, (ANY_BIT, 0, 1, CLONE_THREAD))
        yield from _if(SOCKETPAIR[column], 0, (EQUAL, 0, 1, AF_UNIX))
        yield from _if(FCNTL[column], 1, (EQUAL, 0, 1, F_DUPFD_CLOEXEC))
        yield EQUAL, 0, 1, CLONE3[column]
        yield RETURN, 0, 0, UNKNOWN
    if executing and (number := ARCH_PRCTL[column]) is not None:
        yield from _if(number, 0, (EQUAL, 0, 1, ARCH_SET_FS))
    yield RETURN, 0, 0, REFUSE


def _if(number: int, argument: int, test: tuple[int, int, int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Allow a call if the test of the low half of an argument does not skip an instruction. The kernel ignores the
    high half: these arguments are C's int."""
    yield EQUAL, 0, 4, number
    yield LOAD, 0, 0, ARGUMENTS + 8 * argument
    yield test
    yield RETURN, 0, 0, ALLOW
    yield RETURN, 0, 0, REFUSE
