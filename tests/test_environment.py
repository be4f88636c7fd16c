"""launch/environment.sh where the shell or the machine is not as it should be, with a Python that only pretends."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = ("bash", "cat", "cksum", "cp", "dirname", "env", "id", "mkdir", "rm", "sed", "sh", "tail", "tee", "touch")
PYTHON = """#!/bin/sh
case "$*" in
*version_info*) [ {version} = 3.12 ] && echo {version} ;;
*"import venv"*) ;;
--version) echo "Python {version}.0" ;;
"-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
"-m pip install"*) env >"{record}" ;;
esac
"""


def environment(folder: Path, version: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Runs the script with nothing on PATH but some tools and python3; pip writes its variables to FOLDER/pip."""
    tools = folder / "bin"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(str(shutil.which(name)))
    (tools / "python3").write_text(PYTHON.format(version=version, record=folder / "pip"))
    (tools / "python3").chmod(0o755)
    command = [str(tools / "bash"), "launch/environment.sh", "requirements.txt", str(folder / "venv")]
    given = {"PATH": str(tools), **variables}
    return subprocess.run(command, cwd=REPOSITORY, env=given, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("version", ["3.14", "3.10"])
def test_a_python_we_do_not_support_is_named_with_the_ways_out(tmp_path: Path, version: str) -> None:
    done = environment(tmp_path, version)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    for words in (f"Python {version}.0", "3.11, 3.12 or 3.13", "PYTHON=", "uv python install 3.13"):
        assert words in line
    assert ("does not run on" in line) == (version == "3.14")
    assert not (tmp_path / "venv").exists()


def test_settings_of_pip_and_python_do_not_get_through(tmp_path: Path) -> None:
    hostile = {"PIP_USER": "1", "PIP_TARGET": "/elsewhere", "PIP_PREFIX": "/p", "PYTHONPATH": "/x", "PYTHONHOME": "/y"}
    missing = str(tmp_path / "missing")
    done = environment(tmp_path, "3.12", **hostile, TMPDIR=missing, PIP_INDEX_URL="mirror")
    assert done.returncode == 0, done.stderr
    seen = dict(line.split("=", 1) for line in (tmp_path / "pip").read_text().splitlines() if "=" in line)
    assert seen["PIP_USER"] == "0"
    assert seen["PIP_INDEX_URL"] == "mirror"
    assert not {*hostile, "TMPDIR"} - {"PIP_USER"} & set(seen)
    again = subprocess.run(
        ["bash", "launch/environment.sh", "requirements.txt", str(tmp_path / "venv")],
        cwd=REPOSITORY, env={**os.environ, "PIP_USER": "1"}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (again.returncode, again.stderr) == (0, "")
