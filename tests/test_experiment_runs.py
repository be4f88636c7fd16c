"""Experiments' launch scripts, several at once: each on a core of its own, none lost, a signal for all of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparse_gpt.experiments import harness

CODE = "import os, sys; print(*os.sched_getaffinity(0)); print(sys.argv[1]); sys.exit(int(sys.argv[1]))"


def _script(name: str, *args: str, log: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", CODE, *args], stdout=log, stderr=log)


@pytest.mark.slow
def test_runs_share_the_cores_and_keep_their_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "script", _script)
    before, runs = os.sched_getaffinity(0), {tmp_path / f"{i}.log": (str(i % 3),) for i in range(5)}
    assert harness.finish_each("train", runs, "runs") == {path: int(code) for path, (code,) in runs.items()}
    assert os.sched_getaffinity(0) == before
    printed = [path.read_text().split() for path in runs]
    assert [code for _, code in printed] == [code for (code,) in runs.values()]
    assert {int(core) for core, _ in printed} <= before
    if len(before) > 1:
        assert len({core for core, _ in printed}) > 1


CHILD = """
import signal, sys, time
def stop(*_):
    print("saved", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
print("runs", flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys
from pathlib import Path
from sparse_gpt import interruption
from sparse_gpt.experiments import harness
harness.script = lambda name, *args, log: subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=log, stderr=log)
harness._cores = lambda: [None, None]
interruption.install()
try:
    harness.finish_each("train", {{Path(f"{{i}}.log"): () for i in range(3)}}, "runs")
except interruption.Interrupted:
    sys.exit(interruption.EXIT_CODE)
"""


def test_a_signal_reaches_every_run_and_no_other_is_started(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(harness.REPOSITORY)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=tmp_path, env=environment)
    logs = [tmp_path / f"{i}.log" for i in range(3)]
    until = time.monotonic() + 60
    while not all(log.is_file() and log.read_text() for log in logs[:2]):
        assert time.monotonic() < until
        time.sleep(0.05)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(60) == 75
    assert [log.read_text() for log in logs[:2]] == ["runs\nsaved\n"] * 2
    assert not logs[2].exists()
