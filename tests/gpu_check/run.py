"""Checks and times this project on a machine with one GPU, in at most four minutes and without a network.

    bash tests/gpu_check/wheels.sh            once, where there is a network; then carry the folder along
    python3 tests/gpu_check/run.py            there; --out=DIR for the JSON file and the logs (default: runs/gpu_check)

What a GPU computes is compared with the CPU (parity.py), the train step is timed at d=1024 and 2048 in bfloat16 beside
floors from this card's own rates (`launch.benchmark --parts=accelerator`) and beside the reference's own way in PyTorch
(torch_step.py). Parts that do not fit into the time are skipped, and named. Exit code 1 when a check fails,
or not all of them were made.

    python tests/gpu_check/run.py --small     tries all of it on a CPU, at tiny sizes and with PYTORCH=PYTHON for
                                              the interpreter that has PyTorch, where it is another one
"""

import datetime
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.gpu_check import kit

SECONDS = 225.0
PARITY, PYTORCH = 0.33, 0.31  # shares of that: at most for the first part; kept for the last
LEAST = 15.0  # a part that has less left is not begun


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the parts, prints the tables, writes gpu_check.json."""
    started = time.monotonic()
    args = kit.arguments(argv, __doc__, "gpu_check", SECONDS)
    run = Run(kit.Budget(started, args.seconds), args.out, args.small, kit.environment())
    try:
        run.all_parts()
    finally:
        result = run.result()
        (args.out / "gpu_check.json").write_text(json.dumps(result, indent=1) + "\n")
    report(result)
    print(f"\n{time.monotonic() - started:.0f} s -> {args.out / 'gpu_check.json'}")
    whole = ("parity", "done") in [(part["name"], part["status"]) for part in result["parts"]]
    return 0 if whole and result["parity"] and all(row["ok"] for row in result["parity"]) else 1


class Run:
    """The parts, in the order of their worth, within a budget."""

    def __init__(self, budget: kit.Budget, out: Path, small: bool, environment: Mapping[str, str]):
        self.budget, self.out, self.small, self.environment = budget, out, small, environment
        self.benchmark = out / "times" / "benchmark.json"
        self.parts: list[kit.Part] = []
        self.skipped: list[str] = []

    def all_parts(self) -> None:
        """Parity, then our times, then PyTorch's."""
        small = ["--small"] if self.small else []
        self.part("parity", ["-m", "tests.gpu_check.parity", *small], PARITY * self.budget.seconds)
        self.benchmark.unlink(missing_ok=True)  # of an earlier run
        options = [f"--workdir={self.benchmark.parent}", "--parts=accelerator", f"--rounds={2 if self.small else 10}"]
        self.part("times", ["-m", "launch.benchmark", *options], self.budget.left() - PYTORCH * self.budget.seconds)
        for size in ("small",) if self.small else ("1024", "2048"):
            self.part(f"PyTorch d={size}", ["-m", "tests.gpu_check.torch_step", size], self.budget.left(), pytorch=True)

    def part(self, name: str, command: Sequence[str], seconds: float, pytorch: bool = False) -> None:
        """One of them, unless its time is up."""
        seconds = min(seconds, self.budget.left() - 2)  # the tables take a moment
        if seconds < LEAST:
            self.skipped.append(name)
            print(f"== {name}: skipped, {max(0.0, seconds):.0f} s left")
            return
        python = os.environ.get("PYTORCH", sys.executable) if pytorch else sys.executable
        log = self.out / f"{name.replace(' ', '_').replace('=', '')}.log"
        self.parts.append(kit.run_part(name, command, seconds, self.environment, log, python))

    def result(self) -> dict[str, Any]:
        """Everything as plain values."""
        told = {part.name: part.results for part in self.parts}
        first, *checks = told.get("parity") or [{}]
        times = json.loads(self.benchmark.read_text())["accelerator"] if self.benchmark.is_file() else []
        return {
            "format": "sparse_gpt.gpu_check/1",
            "date": datetime.date.today().isoformat(),
            "small": self.small,
            "machine": {**first, "cpus": os.cpu_count()},
            "parity": [row for row in checks if "check" in row],
            "times": times + [row for name, rows in told.items() if name.startswith("PyTorch") for row in rows],
            "parts": [{"name": p.name, "status": p.status, "seconds": p.seconds, "tail": p.tail} for p in self.parts],
            "skipped": self.skipped,
        }


def report(result: Mapping[str, Any]) -> None:
    """The tables."""
    print(f"\n{result['machine'].get('device', 'no device')}; JAX {result['machine'].get('jax', '')}, kernels: "
          f"{result['machine'].get('kernels', '')}")  # fmt: skip
    print("\nparity with the CPU")
    kit.print_table(result["parity"], ("check", "ok", "off", "limit", "of"))
    print("\ntimes")
    kit.print_table(result["times"], ("what", "ms", "floor_ms", "times_floor", "note"))
    for part in result["parts"]:
        if part["status"] != "done":
            print(f"{part['name']}: {part['status']} after {part['seconds']:.0f} s; its last lines:\n{part['tail']}")
    for name in result["skipped"]:
        print(f"{name}: skipped, no time was left")


if __name__ == "__main__":
    sys.exit(main())
