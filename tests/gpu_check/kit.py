"""What both scripts of the kit need: packages carried along as wheels, a budget of time, and parts as processes.

A part is a process of its own: one that crashes, hangs or takes too long costs its own result and no other's, and it
gives the GPU's memory back. Nothing here imports JAX or PyTorch.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
WHEELS = Path(__file__).resolve().parent / "wheels"
MARK = "RESULT "  # begins a line that a part prints for us, JSON behind it


@dataclasses.dataclass(frozen=True)
class Budget:
    """Seconds from `started` on the monotonic clock."""

    started: float
    seconds: float

    def left(self) -> float:
        """Seconds left."""
        return self.started + self.seconds - time.monotonic()


def arguments(argv: Sequence[str] | None, about: str | None, folder: str, seconds: float) -> argparse.Namespace:
    """The command line of a script: `out`, which is made, `seconds`, `small`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / folder, help="folder for results")
    parser.add_argument("--seconds", type=float, default=seconds, help="for everything")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try it on a CPU")
    found = parser.parse_args(argv)
    found.out.mkdir(parents=True, exist_ok=True)
    return found


def environment() -> dict[str, str]:
    """The environment of parts: the carried packages, and where compiled programs are kept from part to part."""
    folders = [str(REPOSITORY)]
    # Everything that is pinned by requirements.txt and that a machine for GPUs may not have.
    if importlib.util.find_spec("msgspec") is None or importlib.util.find_spec("grain") is None:
        folders.append(str(_unpack_wheels()))
    paths = [*folders, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / "gpu_check_programs"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }


def _unpack_wheels() -> Path:
    """A folder with the packages of the wheels, which are zip files of what an installation copies."""
    wheels = sorted(WHEELS.glob("*.whl"))
    if not wheels:
        sys.exit(f"{WHEELS}: no wheels here; run bash tests/gpu_check/wheels.sh where there is a network")
    folder = Path(tempfile.gettempdir()) / "gpu_check_packages"
    if not folder.is_dir():
        unfinished = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(unfinished)
        unfinished.rename(folder)
    return folder


@dataclasses.dataclass
class Part:
    """How a process ended, and what it said."""

    name: str
    status: str  # "done", "failed", or "out of time"
    seconds: float
    results: list[dict[str, Any]]
    tail: str


def run_part(
    name: str,
    command: Sequence[str],
    seconds: float,
    environment: Mapping[str, str],
    log: Path | None = None,
    python: str = sys.executable,
) -> Part:
    """Runs a process for at most so many seconds; what it prints is shown as it comes, lines with results collected."""
    started, results, lines = time.monotonic(), [], []
    print(f"\n== {name} (at most {seconds:.0f} s)", flush=True)
    process = subprocess.Popen(
        [python, *command], cwd=REPOSITORY, env=dict(environment), text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    signal.signal(signal.SIGALRM, lambda *_: end(process))
    signal.setitimer(signal.ITIMER_REAL, max(0.1, seconds))
    assert process.stdout
    try:
        for line in process.stdout:
            if line.startswith(MARK):
                results.append(json.loads(line.removeprefix(MARK)))
            else:
                lines.append(line)
            print(line, end="", flush=True)
        code = process.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        end(process)
        process.stdout.close()
    took = time.monotonic() - started
    status = "done" if code == 0 else "out of time" if took >= seconds else "failed"
    if log is not None:
        log.write_text("".join(lines))
    print(f"== {name}: {status} after {took:.1f} s", flush=True)
    return Part(name, status, took, results, "".join(lines[-15:]))


def end(process: "subprocess.Popen[Any]") -> None:
    """Ends a process that is still there, and what it started. It was started as a session of its own."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def tell(**result: Any) -> None:
    """Called in a part: hands one result to the script that started it."""
    print(MARK + json.dumps(result), flush=True)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Rows of plain values in aligned columns."""
    cells = [list(columns)] + [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
