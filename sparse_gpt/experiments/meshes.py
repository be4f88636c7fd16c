"""Experiment: a mesh of eight devices trains what one device trains."""

from pathlib import Path

import numpy as np

from sparse_gpt.experiments.harness import (
    Check,
    at_most,
    equal,
    finish,
    given_tokens,
    manifest,
    params,
)
from sparse_gpt.parameters import flatten


def scale_equality(folder: Path) -> list[Check]:
    """Ten steps on one device and on two meshes of eight."""
    flags = ["--preset=tiny", given_tokens(folder, 10)]
    finish("train", f"--workdir={folder / 'one'}", *flags, devices=1)
    one = flatten(params(folder / "one"))
    checks = []
    for mesh in ("data=8", "data=2,fsdp=2,tensor=2"):
        workdir = folder / mesh
        finish("train", f"--workdir={workdir}", *flags, f"--config.train.mesh={mesh}", devices=8)
        many = flatten(params(workdir))
        # A float added up in another order can change which of two nearly equal weights is the last one kept.
        differing = sum(int(np.sum(np.abs(many[path] - leaf) > 1e-4)) for path, leaf in one.items())
        share = differing / sum(leaf.size for leaf in one.values())
        checks.append(at_most(f"{mesh}: share of parameters that differ by more than 1e-4", share, 1e-3))
        counts = manifest(workdir).nonzeros == manifest(folder / "one").nonzeros
        checks.append(equal(f"{mesh}: nonzeros of every tensor equal", counts, True))
    return checks
