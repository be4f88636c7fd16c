"""manifest.json: what a result depends on, and the fingerprint of the parameters it ended with."""

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from sparse_gpt import machine
from sparse_gpt.errors import InputError
from sparse_gpt.io import read_json
from sparse_gpt.parameters import Params, flatten
from sparse_gpt.records import Manifest, converted
from sparse_gpt.records.run import Numerics

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers", "tiktoken")


def params_sha256(params: Params) -> str:
    """SHA-256 over every parameter's path, shape, dtype and little-endian bytes, in sorted order of paths."""
    digest = hashlib.sha256()
    for path, leaf in sorted(("/".join(path), leaf) for path, leaf in flatten(params).items()):
        array = np.ascontiguousarray(jax.device_get(leaf))
        digest.update(f"{path} {array.shape} {array.dtype}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def nonzeros(params: Params) -> dict[str, int]:
    """Nonzero entries of every tensor, by path."""
    return {"/".join(path): int(np.count_nonzero(np.asarray(leaf))) for path, leaf in flatten(params).items()}


def git_revision() -> tuple[str, str]:
    """Revision of the checkout this code runs from, and why there is none where it is "": no git, no checkout of this
    project, or one that git does not open (such as another user's)."""
    here = Path(__file__).resolve().parent
    command = ["git", "rev-parse", "--show-toplevel", "HEAD"]
    try:
        done = subprocess.run(
            command, cwd=here, capture_output=True, text=True, check=False, errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"git does not run: {error}"
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != 2:
        return "", (done.stderr.strip().splitlines() or ["git found no revision"])[0]
    if Path(lines[0]).resolve() != here.parents[1]:
        return "", f"unpacked inside the checkout of something else, {lines[0]}"
    return lines[1], ""


def describe(facts: Mapping[str, object]) -> Manifest:
    """Manifest of a run: versions, device, revision, plus `facts` (hashes, seeds)."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    revision, reason = git_revision()
    found = Manifest(
        packages=versions,
        python=platform.python_version(),
        git_revision=revision,
        git_revision_missing=reason or None,
        device_kind=jax.devices()[0].device_kind,
        device_count=jax.device_count(),
        machine=converted(machine.numerics(), Numerics),
    )
    return Manifest.from_tree({**found.tree(), **facts})


def other_machine(workdir: Path) -> str:
    """One line if the manifest of a run names another machine than this one; "" if it does not, or cannot be read."""
    try:
        held = read_json(workdir / "manifest.json")["machine"]
        here = machine.numerics()
        differing = [
            f"{name} {held[name]} there, {here[name]} here"
            for name in ("processor", "vector_extensions", "threads", "xla_flags")
            if held[name] != here[name]
        ]
    except (InputError, KeyError, TypeError):
        return ""
    if not differing:
        return ""
    return f"{workdir}: goes on where other bits may come out than where it began ({'; '.join(differing)})"


def read(workdir: Path) -> Manifest:
    """A workdir's manifest; empty, and said, where it is missing or damaged: what it tells can be found out again."""
    path = workdir / Manifest.FILE
    try:
        return Manifest.read(path) if path.exists() else Manifest()
    except InputError as error:
        print(f"{error}; going on without it", file=sys.stderr)
        return Manifest()


def update(workdir: Path, facts: Mapping[str, object]) -> Manifest:
    """Adds facts to a workdir's manifest.json and returns it whole."""
    manifest = Manifest.from_tree({**read(workdir).tree(), **facts})
    manifest.write(workdir / Manifest.FILE)
    return manifest
