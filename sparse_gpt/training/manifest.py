"""manifest.json: what a result depends on, and the fingerprint of the parameters it ended with."""

import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from sparse_gpt.errors import InputError
from sparse_gpt.io import read_json, read_json_if_any, write_json
from sparse_gpt.model.parameters import Params, flatten
from sparse_gpt.records import MANIFEST

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


def describe(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Manifest of a run: versions, device, revision, plus `facts` (hashes, seeds)."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    revision, reason = git_revision()
    return {
        "format": "sparse_gpt.manifest/1",
        "packages": versions,
        "python": platform.python_version(),
        "git_revision": revision,
        **({"git_revision_missing": reason} if reason else {}),
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        **facts,
    }


def read(workdir: Path, schema: Any = MANIFEST) -> dict[str, Any]:
    """A workdir's manifest.json; InputError if there is none, or one that is damaged or not as the schema says."""
    found: dict[str, Any] = read_json(workdir / "manifest.json", schema)
    return found


def update(workdir: Path, facts: Mapping[str, Any], say: Callable[[str], object] = tqdm.write) -> dict[str, Any]:
    """Adds facts to a workdir's manifest.json and returns it whole.

    One that is damaged is begun anew, and `say` is told so: a run that goes on finds everything out again.
    """
    path = workdir / "manifest.json"
    try:
        manifest: dict[str, Any] = read_json_if_any(path, MANIFEST)
    except InputError as error:
        say(f"{error}: it is written anew")
        manifest = {}
    manifest |= facts
    write_json(path, manifest)
    return manifest
