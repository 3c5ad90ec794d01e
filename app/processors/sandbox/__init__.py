"""The child's side of `app/processors/confined.py`: confines its own process, then runs the module that does the work,
or becomes the program that does.

A document may exploit its parser, and whatever runs here may then do is confined to computing: it has the document on
standard input, standard output, the code, and nothing else. Only the standard library is imported before that.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from app.processors.sandbox import calls, landlock, seccomp

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
NICENESS = 10  # requests come first
OPEN_FILES = 16
NO_CORE = 1  # bytes, too few for a core dump; 0 is no limit of one that Linux pipes to a program
THREADS = 4096  # of all the user's processes together, if a child may have any: RLIMIT_NPROC counts all of them


def main() -> None:
    """Run what is to be launched, confined. The argument is a JSON object: see `Confined`."""
    launch = json.loads(sys.argv[1])
    if "command" in launch:
        _execute(launch)
    _import(launch)


def _execute(launch: Mapping[str, Any]) -> NoReturn:
    """Become a program: see `ConfinedProgram`."""
    try:
        command = launch["command"]
        readable = map(Path, launch["readable"])
        confine(launch["parent"], launch["memory"], launch["cpu_seconds"], readable, program=Path(command[0]))
        os.execve(command[0], command, launch["environment"])  # noqa: S606 - it is to be this very process
    finally:  # it raised something
        os._exit(os.EX_OSERR)


def _import(launch: Mapping[str, Any]) -> None:
    """Run `main(task)` or another function of a module: see `ConfinedChild`.

    The packages that the module is in are imported before this process is confined; the module itself after.
    """
    name, root = launch["module"], Path(launch["root"])
    sys.path.append(str(root))
    spec = find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    own_code = root / name.partition(".")[0] if "." in name else Path(str(spec.origin))
    readable = [own_code, *map(Path, launch["readable"])]
    confine(launch["parent"], launch["memory"], launch["cpu_seconds"], readable, threads=launch["threads"])
    loader, module = spec.loader, module_from_spec(spec)

    def load() -> ModuleType:
        sys.modules[name] = module
        loader.exec_module(module)
        return module

    if launch["function"]:
        calls.run(load, launch["function"], launch["task"])
    else:
        load().main(launch["task"])


def confine(
    parent: int,
    memory: int,
    cpu_seconds: int,
    readable: Iterable[Path],
    *,
    threads: bool = False,
    program: Path | None = None,
) -> None:
    """Limit this process to `memory` bytes and `cpu_seconds` of processor time, to reading what is at `readable` and
    the installed code, and to the system calls that computing needs; with `threads`, to those that starting threads
    and waiting for them needs, too; with a `program`, to those that it takes to become that, and nothing else.

    What the platform lacks is left out: see `missing`. Ends the process if `parent` is no longer its parent. Raises
    OSError if a guard that the kernel has cannot be set up.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a service manager sends it to all; the parent decides when to stop
    os.nice(NICENESS)
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(PR_SET_DUMPABLE, 0)  # until it becomes a program
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if os.getppid() != parent:  # it died before PR_SET_PDEATHSIG was set
        os._exit(1)
    _limit(memory, cpu_seconds, THREADS if threads else 0)
    if landlock_missing() is None:
        executable = [program, *_loaders()] if program else []
        landlock.restrict([*readable, *_installed()], executable)
    if seccomp_missing() is None:
        seccomp.restrict(threads=threads, executing=program is not None)


def missing() -> str | None:
    """Say what `confine` cannot do on this system, or return None if it can do everything.

    With seccomp, any ABI of Landlock will do: what the older ones do not restrict, seccomp refuses.
    """
    lacks = {"Landlock": landlock_missing(), "seccomp": seccomp_missing()}
    found = [f"{name} is not available: {reason}" for name, reason in lacks.items() if reason]
    if lacks["seccomp"] and not lacks["Landlock"] and (version := landlock.abi()) < landlock.WHOLE:
        found.append(f"Landlock's ABI is {version}; truncating, TCP and signals are all restricted from 6 on")
    return "; ".join(found) or None


def landlock_missing() -> str | None:
    """Say why Landlock is not used, or return None if it is."""
    if sys.platform != "linux":
        return "this is not Linux"
    try:
        landlock.abi()
    except OSError as error:
        return error.strerror
    return None


def seccomp_missing() -> str | None:
    """Say why seccomp is not used, or return None if it is."""
    return seccomp.unavailable() if sys.platform == "linux" else "this is not Linux"


def hide_process() -> None:
    """Keep the user's other processes from this one's memory and from /proc/<pid>/environ, which holds secrets."""
    if sys.platform == "linux":
        _prctl(PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0)))


def _limit(memory: int, cpu_seconds: int, threads: int) -> None:
    limits = {"AS": memory, "CPU": cpu_seconds, "NOFILE": OPEN_FILES, "NPROC": threads, "FSIZE": 0, "CORE": NO_CORE}
    for name, limit in limits.items():
        hard_limit = limit + 1 if name == "CPU" else limit  # SIGXCPU at the soft limit, SIGKILL at the hard one
        with suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, hard_limit))


def _installed() -> list[Path]:
    """Return where Python, its packages and the libraries that they load are. A whole prefix may be `/`."""
    prefixes = {"/", "/usr", "/usr/local", sys.base_prefix, sys.prefix}
    folders = [Path(prefix, lib) for prefix in prefixes for lib in ("lib", "lib32", "lib64")]
    return [*folders, Path("/etc/ld.so.cache")]


def _loaders() -> list[Path]:
    """Return the programs that load the shared libraries of others: of glibc, and of musl."""
    return [loader for lib in ("/lib", "/lib64") for loader in Path(lib).glob("ld-*.so.*")]
