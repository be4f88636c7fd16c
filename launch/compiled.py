"""Where compiled programs are kept from one run to the next."""

import hashlib
import os
import platform
from pathlib import Path


def keep_programs() -> None:
    """Turns JAX's persistent compilation cache on, for a JAX that is not imported yet.

    JAX's own variables rule: JAX_COMPILATION_CACHE_DIR puts programs elsewhere, JAX_ENABLE_COMPILATION_CACHE=false
    keeps none. Only programs that took JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS (default 1) to compile are kept.
    """
    folder = _user_folder()
    if folder is not None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "sparse_gpt" / "jax" / processor())


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
        return Path(given)
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return None
