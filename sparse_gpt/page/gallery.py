"""WORKDIR/circuits/gallery.html: one file that runs circuits of a model, and the minimal ones inside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import numpy as np

from sparse_gpt.circuits.circuit import Circuit, load
from sparse_gpt.drawing.templates import environment
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.page.modules import FOLDER
from sparse_gpt.page.page import Around, Entry, page_data, render_body, whole_page, write_page
from sparse_gpt.page.samples import offered_samples
from sparse_gpt.tasks import AnyTask
from sparse_gpt.workdir import Workdir


class _Shown(NamedTuple):
    folder: Path
    circuit: Circuit
    samples: list[Tree]
    inside: bool


def build_gallery(run: Workdir, circuits: Sequence[Sequence[AnyTask]]) -> Path:
    """Writes the gallery and returns its path. The page shows one circuit at a time, named in its address.

    Args:
      run: the model.
      circuits: of each the task, or the tasks that share it.

    Raises:
      InputError: there is none, or no such circuit, it belongs to other weights, or a file is broken.
      TaskError: the tokenizer or the context allows no sample.
    """
    if not circuits:
        raise InputError(
            f"{run.folder}: has no circuits; find some with launch.prune --workdir={run.folder} --task=TASK"
        )
    shown: dict[str, _Shown] = {}
    for members in circuits:
        folder = run.folder / "circuits" / "+".join(task.name for task in members)
        circuit = load(folder, run.params_sha256, run.config.model)
        shown[folder.name] = _Shown(folder, circuit, offered_samples(run, members, circuit), False)
        if (inner := circuit.minimal) is not None:
            samples = offered_samples(run, members, inner)
            shown[f"{folder.name}, minimal"] = _Shown(folder, inner, samples, True)
    entries = [
        Entry(f"?{urlencode({'circuit': name})}", name, each.circuit.task, len(each.circuit.edges), each.inside)
        for name, each in shown.items()
    ]
    ablation: dict[str, dict[str, np.ndarray]] = {}
    data: Tree = {}
    for name, (folder, circuit, samples, inside) in shown.items():
        page = page_data(run, folder, circuit, samples)
        page["record"]["values"] = _name_of(circuit.values, ablation)
        page["file"] += "_minimal" if inside else ""
        page["body"] = render_body(run, folder, circuit, Around(gallery=entries, name=name, inside=inside))
        data[name] = {**page, "hosted": False}
    bodies = [page["body"] for page in data.values()]
    title = f"circuits of {run.folder.resolve().name}"
    first = environment(FOLDER).get_template("gallery.html").render(title=title, gallery=entries)
    path = run.folder / "circuits" / "gallery.html"
    write_page(path, whole_page(run, title, first, bodies, ablation, {"circuits": data}))
    return path


def _name_of(values: dict[str, np.ndarray], known: dict[str, dict[str, np.ndarray]]) -> str:
    """What ablation values are called: those of circuits found with the same settings are the same, carried once."""
    for name, others in known.items():
        if all(np.array_equal(others[site], each) for site, each in values.items()):
            return name
    name = f"ablation {len(known)}"
    known[name] = values
    return name
