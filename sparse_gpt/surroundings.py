"""What a script takes from the shell it is started in, and what of that it does not let in."""

import contextlib
import errno
import io
import os
import sys
from typing import TextIO

from sparse_gpt import machine

# They change the numbers that a run ends with, and no manifest names them.
CHANGE_BITS = ("JAX_ENABLE_X64", "JAX_DEFAULT_DTYPE_BITS", "JAX_DEFAULT_PRNG_IMPL", "JAX_THREEFRY_PARTITIONABLE")
STRICTER = ("JAX_NUMPY_DTYPE_PROMOTION", "JAX_NUMPY_RANK_PROMOTION")  # packages that we use do not bear them


# What a user can mend of what the operating system refuses, and how.
DISK = {
    errno.EACCES: "change its permissions or name another place",
    errno.EPERM: "change its permissions or name another place",
    errno.EROFS: "name a place that can be written to",
    errno.ENOSPC: "make room, then run the same command again",
    errno.EDQUOT: "make room, then run the same command again",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ENOTDIR: "a file stands where a folder is needed; name another",
    errno.EISDIR: "a folder stands where a file is needed; name another",
    errno.ELOOP: "its links lead in a circle; name another",
}


def settle() -> None:
    """Makes every script give the same wherever it is started. To be called before JAX is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["MPLBACKEND"] = "agg"  # that of a notebook is not there in a script
    for name in (*CHANGE_BITS, *STRICTER):
        os.environ.pop(name, None)
    # On one thread XLA adds up in another order than on two to four, which all give the same bits.
    if machine.cores() == 1:
        os.environ.setdefault(machine.THREADS, "2")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without a sign shows its number


def silence(*streams: TextIO) -> None:
    """For readers that have gone, as `head` does: nothing more is written, not even when Python ends."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def disk_fault(error: OSError) -> str:
    """One line for an error that a user can mend, with the way out; "" for any other."""
    if error.errno not in DISK:
        return ""
    return f"{error.filename or 'a file'}: {error.strerror}; {DISK[error.errno]}"


def fault(error: Exception) -> str:
    """One line for an error whose cause is that JAX cannot start in this environment; "" when it can."""
    try:
        import jax

        jax.devices()
    except Exception:
        ours = "JAX_COMPILATION_CACHE_DIR"
        names = [name for name in sorted(os.environ) if name.startswith("JAX_") and name != ours]
        given = " ".join(f"{name}={os.environ[name]}" for name in names)
        reason = str(error).partition("\n")[0] or type(error).__name__
        return f"{given or 'JAX'}: JAX does not start here ({reason}); unset these, or choose JAX_PLATFORMS=cpu"
    return ""
