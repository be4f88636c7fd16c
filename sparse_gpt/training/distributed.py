"""Several processes as one run: how they find each other, and the few moments in which they must agree.

Everything else about distribution is sharding (see sharding.py): each process runs the same program on its own devices
and feeds its own rows. Files are written by process 0, except checkpoints, which all processes write together; the
workdir must therefore be on storage that all of them see.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from sparse_gpt import interruption, locks
from sparse_gpt.errors import InputError


def initialize(
    coordinator: str | None = None,
    process_count: int | None = None,
    process_index: int | None = None,
    wait_seconds: int = 120,
) -> None:
    """Joins this process to the others. Must come before anything else touches a device.

    Args:
      coordinator: "host:port" of process 0; with it come `process_count` and `process_index`. All None: found out from
        the environment on Cloud TPU, GKE, Slurm and Open MPI.
      process_count, process_index: how many processes there are, and which one this is, from 0.
      wait_seconds: how long to wait for the others.

    Raises:
      InputError: incomplete or impossible arguments, or no cluster found. When the others do not come in time, the
        process ends instead, with one line and exit code 2.
    """
    given = (coordinator, process_count, process_index)
    if any(value is not None for value in given):
        _check(coordinator, process_count, process_index)
        assert coordinator is not None
        if process_index:
            _reach(coordinator, wait_seconds)
    # Collectives between CPUs are matched by their order. Two programs in flight at once can reach two processes in
    # different orders, and then both wait for ever. Accelerators are not concerned.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    where = f"--coordinator={coordinator}" if coordinator else "--distributed"
    late = (
        f"{where}: the {process_count or 'other'} processes did not come together within {wait_seconds} s; start all "
        "of them, with the same coordinator and count and different indices"
    )
    try:
        with _ended_after(wait_seconds, late):
            jax.distributed.initialize(
                coordinator, process_count, process_index, initialization_timeout=wait_seconds + 60
            )
    except ValueError as error:
        raise InputError(
            f"--distributed: no cluster found ({_first_line(error)}); outside Cloud TPU, GKE, Slurm and Open MPI give "
            "--coordinator=HOST:PORT, --process_count and --process_index"
        ) from error
    except RuntimeError as error:
        raise InputError(f"{late} ({_first_line(error)})") from error
    if interruption.is_installed():
        interruption.handle()  # JAX has put a handler of its own in the place of ours


@contextlib.contextmanager
def _ended_after(seconds: float, message: str) -> Iterator[None]:
    """Ends the process with one line and exit code 2 unless the body is done in time.

    No exception, because the body waits in JAX's own code, which at its own time limit aborts with a stack trace.
    """

    def end() -> None:
        print(f"error: {message}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check(coordinator: str | None, process_count: int | None, process_index: int | None) -> None:
    flags = {"coordinator": coordinator, "process_count": process_count, "process_index": process_index}
    missing = [f"--{name}" for name, value in flags.items() if value is None]
    if missing:
        raise InputError(f"{', '.join(missing)}: missing; give --coordinator, --process_count and --process_index")
    assert coordinator is not None
    assert process_count is not None
    assert process_index is not None
    _, colon, port = coordinator.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"--coordinator={coordinator}: expected HOST:PORT, the address of process 0")
    if process_count < 1:
        raise InputError(f"--process_count={process_count}: must be at least 1")
    if not 0 <= process_index < process_count:
        raise InputError(f"--process_index={process_index}: must be in [0, process_count={process_count})")


def _reach(coordinator: str, wait_seconds: int) -> None:
    """Waits until process 0 listens, so that a wrong address ends in one line."""
    host, _, port = coordinator.rpartition(":")
    stop = time.monotonic() + wait_seconds
    while True:
        try:
            with contextlib.closing(socket.create_connection((host.strip("[]"), int(port)), timeout=5)):
                return
        except OSError as error:
            if time.monotonic() > stop:
                raise InputError(
                    f"--coordinator={coordinator}: not reached within {wait_seconds} s ({error}); is process 0 running "
                    "there, and is the port open?"
                ) from error
            time.sleep(0.5)


def is_first() -> bool:
    """Whether this process writes files and talks to the person."""
    return jax.process_index() == 0


def first_does(work: Callable[[], object]) -> None:
    """Process 0 does `work` while the others wait. When it fails there, every process raises InputError."""
    failure: Exception | None = None
    if is_first():
        try:
            work()
        except Exception as error:
            failure = error
    failed = any_process(failure is not None)
    if failure is not None:
        raise failure
    if failed:
        raise InputError("process 0 could not go on; its own message says why")


@contextlib.contextmanager
def writing(workdir: Path) -> Iterator[None]:
    """`locks.writing` by process 0, for all of them."""
    with contextlib.ExitStack() as stack:
        first_does(lambda: stack.enter_context(locks.writing(workdir)))
        yield


def any_process(flag: bool) -> bool:
    """Whether `flag` holds on any process; all must call it."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
