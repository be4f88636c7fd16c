"""Pod recipes: what they would run is complete, pastes into a shell and starts `launch.train` right."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from sparse_gpt import config as configs

PODS = Path(__file__).resolve().parent.parent / "launch" / "pods"
REQUIRED = {
    "cloud_tpu_vm": ["--name=my pod", "--zone=some-zone", "--bucket=some-bucket", "--source=https://example.org/x.git"],
    "gke": ["--name=run", "--image=some/image", "--claim=some-claim"],
    "slurm": ["--name=run", "--workdir=/shared/run 1"],
}
ACTIONS = {
    "cloud_tpu_vm": ("create", "install", "train", "logs", "stop", "recreate", "delete"),
    "gke": ("train", "logs", "stop", "delete"),
    "slurm": ("install", "train", "logs", "stop"),
}


def recipe(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a recipe."""
    return subprocess.run(["bash", str(PODS / f"{name}.sh"), *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "action"), [(name, action) for name, actions in ACTIONS.items() for action in actions]
)
def test_dry_run_prints_valid_commands_and_does_nothing(name: str, action: str, tmp_path: Path) -> None:
    script = [PODS / f"{name}.sh", action, *REQUIRED[name], "--dry_run"]
    done = subprocess.run(
        ["bash", *map(str, script)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert not list(tmp_path.iterdir())
    command = shlex.split(done.stdout.splitlines()[-1])
    assert command[0] in ("gcloud", "kubectl", "sbatch", "scancel", "tail", ".venv/bin/python")


@pytest.mark.parametrize("name", ACTIONS)
def test_training_is_started_distributed_in_the_given_workdir(name: str) -> None:
    workdir = "/shared/some run"
    given = [option for option in REQUIRED[name] if not option.startswith("--workdir")]
    done = recipe(name, "train", *given, f"--workdir={workdir}", "--preset=paper_118m", "--dry_run")
    assert done.returncode == 0, done.stderr
    text = done.stdout
    if name == "cloud_tpu_vm":  # one quoted argument for the workers' shell
        text = next(word for word in shlex.split(text) if word.startswith("--command=")).removeprefix("--command=")
        assert subprocess.run(["bash", "-n", "-c", text], check=False).returncode == 0
    assert "launch.train" in text
    assert "--distributed" in text
    assert "paper_118m" in text
    words = text.replace('"', " ").replace(",", " ") if name == "gke" else text
    assert workdir in " ".join(words.replace("\\ ", " ").split())


def test_recipes_give_train_flags_that_it_has() -> None:
    script = (PODS.parent / "train.py").read_text() + (PODS.parent / "cli.py").read_text()
    known = set(re.findall(r'(?:DEFINE_\w+|define_path)\(\s*"(\w+)"', script))
    fields = {f"config.{group}.{name}" for group, held in configs.to_dict(configs.Config()).items() for name in held}
    for name in ACTIONS:
        text = recipe(name, "train", *REQUIRED[name], "--dry_run").stdout.replace("\\ ", " ")
        given = re.findall(r"--([\w.]+)", text[text.index("launch.train") :].split("\n")[0])
        assert {"distributed", "preset", "workdir"} <= set(given) <= known | fields


def test_stopping_and_starting_again_keeps_the_workdir_and_takes_up_no_second_place() -> None:
    start = recipe("cloud_tpu_vm", "train", *REQUIRED["cloud_tpu_vm"], "--dry_run").stdout
    stop = recipe("cloud_tpu_vm", "stop", *REQUIRED["cloud_tpu_vm"], "--dry_run").stdout
    assert "train.pid" in start
    assert "train.pid" in stop
    script = recipe("slurm", "train", *REQUIRED["slurm"], "--dry_run").stdout
    assert "#SBATCH --requeue" in script
    assert "#SBATCH --signal=USR1@" in script  # to the processes of all nodes, which save
    assert "75" in script  # the exit code of a run that was interrupted and saved
    assert "run.stop" in recipe("slurm", "stop", *REQUIRED["slurm"], "--dry_run").stdout


@pytest.mark.parametrize(
    ("name", "arguments", "reported"),
    [
        ("cloud_tpu_vm", ("create", "--name=a"), "--zone"),
        ("cloud_tpu_vm", ("fly", "--name=a", "--zone=b"), "fly"),
        ("cloud_tpu_vm", ("train", "--name=a", "--zone=b", "--workdir=gs://bucket/run"), "gs://bucket/run"),
        ("gke", ("train", "--name=a", "--image=b"), "--claim"),
        ("gke", ("logs", "--name=a", "--zone=b"), "--zone"),
        ("slurm", ("train", "--name=a", "--workdir=relative"), "relative"),
        ("slurm", ("train", "stray"), "stray"),
        ("slurm", ("fly", "--name=a"), "fly"),
        ("slurm", ("train",), "--name"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(name: str, arguments: tuple[str, ...], reported: str) -> None:
    done = recipe(name, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert reported in done.stderr
