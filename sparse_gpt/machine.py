"""What this process runs on and how much of it it may use, from the operating system's files; nothing is allocated."""

import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path

THREADS = "PJRT_NPROC"  # the variable that says how many threads a CPU program of XLA runs on
VECTORS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "asimd", "sve")
UNLIMITED = 2**60  # cgroup v1 writes a number near 2 ** 63 for "no limit"


def memory(root: Path = Path("/")) -> int:
    """Bytes that this process can have at most: what is built in, or the lower limit of its container or shell.

    Args:
      root: where proc and sys are, for tests.
    """
    return min(_limits(root), default=UNLIMITED)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def numerics(root: Path = Path("/")) -> dict[str, object]:
    """What the last bits of a computation on this machine's CPU depend on, beside the program.

    Returns:
      processor (model name), vector_extensions, cores that this process may use, threads of a compiled program,
      xla_flags.
    """
    lines = []
    if (root / "proc" / "cpuinfo").is_file():
        lines = (root / "proc" / "cpuinfo").read_text(errors="replace").splitlines()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    has = set((facts.get("flags") or facts.get("Features") or "").split())
    threads = os.environ.get(THREADS, "")
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "vector_extensions": [name for name in VECTORS if name in has],
        "cores": cores(),
        "threads": int(threads) if threads.isdecimal() else cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _limits(root: Path) -> Iterator[int]:
    total = _total(root)
    if total:
        yield total
    for path in _cgroup_files(root):
        found = _number(path)
        if found and found < UNLIMITED:
            yield found
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY and 0 < soft < UNLIMITED:
            yield soft


def _total(root: Path) -> int | None:
    """Physical memory in bytes, if the system says it."""
    try:
        lines = (root / "proc" / "meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))
    except (OSError, ValueError, IndexError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _cgroup_files(root: Path) -> Iterator[Path]:
    """Files with the memory limits of this process's control groups and of those around them, versions 1 and 2."""
    top = root / "sys" / "fs" / "cgroup"
    places = {top / "memory.max", top / "memory" / "memory.limit_in_bytes"}
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except (OSError, ValueError):
        lines = []
    for line in lines:
        _, controllers, own = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (top / "memory", "memory.limit_in_bytes") if controllers else (top, "memory.max")
        folder = base / own.lstrip("/")
        places |= {place / name for place in (folder, *folder.parents) if place.is_relative_to(base)}
    yield from sorted(places)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None
