"""Where compiled programs are kept from one run to the next, and when a process lets go of them."""

import hashlib
import os
import platform
from pathlib import Path

MAPPINGS = 30_000  # of a process's memory. Linux allows 65,530 (vm.max_map_count); a compiled program has six or more


def keep_programs() -> None:
    """Turns JAX's persistent compilation cache on, for a JAX that is not imported yet.

    JAX's own variables rule: JAX_COMPILATION_CACHE_DIR puts programs elsewhere, JAX_ENABLE_COMPILATION_CACHE=false
    keeps none. Only programs that took JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS (default 1) to compile are kept.
    """
    folder = _user_folder()
    if folder is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    place = folder / "sparse_gpt" / "jax" / processor()
    existing = next(path for path in (place, *place.parents) if os.path.exists(path))
    if existing.is_dir() and os.access(existing, os.W_OK):  # else JAX would complain of every program
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(place)


def release_programs(at_most: int = MAPPINGS) -> None:
    """Lets go of all compiled programs if this process has more than `at_most` mappings of memory: where the operating
    system refuses another one, nothing can be compiled ("Cannot allocate memory", or a fault). For the moment before
    work of a new kind; programs that are called again are taken from the persistent cache, or compiled anew.
    """
    import jax  # here, because scripts set the cache up before they import it

    if mappings() > at_most:
        jax.clear_caches()


def mappings() -> int:
    """Mappings of this process's memory; 0 where the system does not tell."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 0


def processor() -> str:
    """A name for this kind of processor: a program compiled for another kind may not run here."""
    facts = platform.machine() + platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(errors="replace").splitlines()
        facts += "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _user_folder() -> Path | None:
    """The user's folder for caches; None for a user who has no home, as in some containers."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given).absolute()
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ".cache" if os.environ.get("HOME") != "" else None
