"""What a script takes from the shell it is started in, and what of that it does not let in."""

import contextlib
import io
import os
import sys
from typing import TextIO

from sparse_gpt import machine

# They change the numbers that a run ends with, and no manifest names them.
CHANGE_BITS = ("JAX_ENABLE_X64", "JAX_DEFAULT_DTYPE_BITS", "JAX_DEFAULT_PRNG_IMPL", "JAX_THREEFRY_PARTITIONABLE")
STRICTER = ("JAX_NUMPY_DTYPE_PROMOTION", "JAX_NUMPY_RANK_PROMOTION")  # packages that we use do not bear them


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


def fault(error: Exception) -> str:
    """One line for an error whose cause is that JAX cannot start in this environment; "" when it can."""
    try:
        import jax

        jax.devices()
    except Exception:
        ours = "JAX_COMPILATION_CACHE_DIR"
        names = [name for name in sorted(os.environ) if name.startswith("JAX_") and name != ours]
        given = " ".join(f"{name}={os.environ[name]}" for name in names)
        told = str(error).partition("\n")[0] or type(error).__name__
        return f"{given or 'JAX'}: JAX does not start here ({told}); unset these, or choose JAX_PLATFORMS=cpu"
    return ""
