"""WORKDIR/circuits/TASK/page.html: a model and a circuit that run in the page, in one file that loads nothing."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np

from sparse_gpt.circuits.circuit import Circuit, load
from sparse_gpt.drawing.svg import SITE_NAMES, draw_circuit
from sparse_gpt.drawing.templates import environment
from sparse_gpt.drawing.text import number
from sparse_gpt.errors import InputError
from sparse_gpt.io import Json, Tree, write_atomic
from sparse_gpt.page.formation import draw_formation, formation_data, formation_of
from sparse_gpt.page.modules import FOLDER, join_modules
from sparse_gpt.page.samples import offered_samples
from sparse_gpt.page.weights import as_text, pack_model
from sparse_gpt.records import Card, Contexts, Formation, Traces
from sparse_gpt.records.files import read_labels
from sparse_gpt.report.rendering import TEMPLATES
from sparse_gpt.report.verdicts import count, samples, sentence
from sparse_gpt.tasks import AnyTask
from sparse_gpt.visible import visible
from sparse_gpt.workdir import Workdir

# Weights that found no free place; only the report ever shows them, and of large circuits they are thousands.
_HIDDEN = re.compile(r'<g class="weight \w+ crowded".*?</g>\n?', re.DOTALL)
_ENGINE, _VIEW = "engine/worker.js", "view/main.js"


class Entry(NamedTuple):
    """A circuit of a gallery: where it is shown, how it is called, its task, its number of edges, and whether it is the
    minimal circuit inside the one before it."""

    address: str
    name: str
    task: str
    edges: int
    inside: bool


class Around(NamedTuple):
    """What a circuit's page has beside the circuit.

    Attributes:
        links: addresses and titles of other pages.
        gallery: all circuits of the page, where there are several.
        name: of this one among them.
        inside: whether it is the minimal circuit inside that of its folder.
    """

    links: Sequence[tuple[str, str]] = ()
    gallery: Sequence[Entry] = ()
    name: str = ""
    inside: bool = False


def build_pages(run: Workdir, circuits: Sequence[Sequence[AnyTask]], indexed: bool = False) -> list[Path]:
    """Writes the pages of circuits, all of them or none, and returns their paths.

    Args:
      run: the model.
      circuits: of each the task, or the tasks that share it.
      indexed: whether the page of all circuits will stand above them, if it does not yet.

    Raises:
      InputError: there is no such circuit, it belongs to other weights, or a file is broken.
      TaskError: the tokenizer or the context allows no sample.
    """
    folders = [run.folder / "circuits" / "+".join(task.name for task in members) for members in circuits]
    loaded = [
        load(folder, run.params_sha256, run.config.model) for folder in folders
    ]  # before anything that takes time
    pages = {
        folder / "page.html": render(
            run, folder, circuit, offered_samples(run, members, circuit), links=links_from(folder, indexed)
        )
        for folder, circuit, members in zip(folders, loaded, circuits, strict=True)
    }
    for path, page in pages.items():
        write_page(path, page)
    return list(pages)


def write_page(path: Path, page: str) -> None:
    """Writes a page, whole or not at all. InputError if it cannot be written."""
    try:
        write_atomic(path, page.encode())
    except OSError as error:
        reason = f"cannot be written ({error.strerror}); free the place or make it writable"
        raise InputError(f"{path}: {reason}") from error


def links_from(folder: Path, indexed: bool = False) -> list[tuple[str, str]]:
    """Addresses and titles of the pages that stand around a circuit's own one. Sent alone, the page would lead nowhere:
    so there are none but of what is there when it is made."""
    report, card = "../../report/index.html", f"#card-{folder.name}"
    found = [(report, "Report"), (f"{report}{card}", "Report card")] if (folder / report).is_file() else []
    found = found if (folder / "card.json").is_file() else found[:1]
    return found + ([("../index.html", "All circuits")] if indexed or (folder / "../index.html").is_file() else [])


def render(
    run: Workdir,
    folder: Path,
    circuit: Circuit,
    samples: list[Tree],
    hosted: bool = False,
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """The page as text; `hosted` for a frame in a notebook, which it then tells its state. `links` as `links_from` has
    them."""
    formation = formation_of(circuit, Formation.read_if_any(folder / "formation.json"))
    body = render_body(run, folder, circuit, Around(links), formation)
    page = {**page_data(run, folder, circuit, samples, formation), "hosted": hosted}
    title = f"{circuit.task} · circuit of {run.folder.resolve().name}"
    return whole_page(run, title, body, [body], {"ablation": circuit.values}, page)


def render_body(
    run: Workdir, folder: Path, circuit: Circuit, around: Around, formation: Formation | None = None
) -> str:
    """What body.html makes of a circuit: its drawing, and places that the page's script fills.

    Args:
      run: the model.
      folder: of the circuit, or of the one that it is inside of.
      circuit: that is drawn.
      around: what else there is.
      formation: of the circuit, if it is to be shown.
    """
    drawing = draw_circuit(circuit.record(), Traces.read_if_any(folder / "traces.json"), run.config.model.d_head)
    return (
        _templates()
        .get_template("body.html")
        .render(
            task=circuit.task,
            folder=folder.name,
            name=run.folder.resolve().name,
            facts=_facts(run, circuit, f" on {_searched(circuit)}" if around.inside else ""),
            card=_card(folder, circuit),
            searched=_searched(circuit),
            core=(_searched(circuit.minimal) or "main") if circuit.minimal else "",
            beyond=_beyond(circuit),
            drawing=_HIDDEN.sub("", drawing),
            formation="" if formation is None else draw_formation(formation, run.config.model.d_head),
            around=around,
        )
    )


def _templates() -> jinja2.Environment:
    found = environment(FOLDER, TEMPLATES)
    found.filters |= {each.__name__: each for each in (count, number, samples, sentence)}
    return found


def whole_page(
    run: Workdir,
    title: str,
    body: str,
    bodies: Iterable[str],
    ablation: Mapping[str, Mapping[str, np.ndarray]],
    page: Mapping[str, Json],
) -> str:
    """A page that loads nothing.

    Args:
      run: the model.
      title: of the window.
      body: what it shows before its script has begun.
      bodies: all that it will show; their styles are allowed.
      ablation: ablation values by the name that `page` has for them, by site.
      page: what `mount` of view/mount.js finds in it.
    """
    style, script = (FOLDER / "page.css").read_text(encoding="utf-8"), join_modules(_VIEW)
    styles = [style, *(inner for each in bodies for inner in re.findall(r"<style>(.*?)</style>", each, re.DOTALL))]
    policy = (
        f"default-src 'none'; script-src {_hashes(script)}; style-src {_hashes(*styles)}; worker-src blob: data:; "
        "img-src blob:; base-uri 'none'; form-action 'none'"
    )
    values = {f"{own}/{site}": each for own, sites in ablation.items() for site, each in sites.items()}
    others: Tree = {"page": dict(page), "engine": join_modules(_ENGINE)}
    packed = as_text(pack_model(run.config, run.params, run.tokenizer, values, others))
    return (
        environment(FOLDER)
        .get_template("page.html")
        .render(policy=policy, title=title, style=style, body=body, packed=packed, script=script)
    )


def page_data(
    run: Workdir, folder: Path, circuit: Circuit, samples: list[Tree], formation: Formation | None = None
) -> Tree:
    """What the page's scripts read, beside the weights."""
    record = circuit.record().tree()
    contexts = Contexts.read_if_any(folder / "contexts.json")
    labels, _ = read_labels(folder, circuit.record())
    return {
        "record": {
            name: record[name]
            for name in ("task", "params_sha256", "norm", "calibration", "edge_pruned", "nodes", "edges")
        },
        "samples": samples,
        "file": folder.name,
        "d_head": run.config.model.d_head,
        "site_names": SITE_NAMES,
        "labels": labels.tree() if labels else None,
        "contexts": {
            each.node.key: shown_contexts(each.tree())
            for each in (contexts.nodes if contexts else ())
            if each.node in circuit.nodes
        },
        "formation": None if formation is None else formation_data(formation),
    }


def shown_contexts(entry: Tree) -> Tree:
    """Contexts with their tokens as they are shown everywhere."""

    def shown(context: Tree) -> Tree:
        return {**context, "tokens": [visible(text) for text in context["tokens"]]}

    return {end: [shown(each) for each in entry[end]] for end in ("top", "bottom")}


def _card(folder: Path, circuit: Circuit) -> Card | None:
    """The report card, if there is one of this circuit."""
    card = Card.read_if_any(folder / "card.json")
    same = card is not None and card.circuit_sha256 in ("", circuit.sha256)
    return card if same else None


def _searched(circuit: Circuit) -> str:
    """The template families that it was chosen on."""
    return ", ".join(entry.family for entry in circuit.families if entry.role == "searched")


def _beyond(circuit: Circuit) -> list[tuple[str, list[int]]]:
    """Nodes that the minimal circuit inside does not have: "layer 0: MLP neuron" and their channels."""
    inner = set(circuit.minimal.nodes) if circuit.minimal else set()
    found: dict[str, list[int]] = {}
    for node in circuit.nodes:
        if node not in inner:
            found.setdefault(f"layer {node.layer}: {SITE_NAMES[node.site]}", []).append(node.channel)
    return list(found.items())


def _facts(run: Workdir, circuit: Circuit, on: str = "") -> str:
    """The circuit in one line; `on` what its losses are measured."""
    known = (
        (name, circuit.metrics.get(key)) for name, key in (("circuit", "task_loss"), ("model", "full_model_task_loss"))
    )
    losses = ", ".join(f"{name} {value:.3f}" for name, value in known if isinstance(value, float))
    parts = [f"{len(circuit.nodes)} nodes, {len(circuit.edges)} edges", f"ablation: {circuit.ablation}"]
    parts += [f"held-out task loss{on}: {losses}"] if losses else []
    return " · ".join([*parts, f"weights {run.params_sha256[:12]}"])


def _hashes(*texts: str) -> str:
    """What a content security policy says of inline elements with these texts."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in dict.fromkeys(texts))
    return " ".join(f"'sha256-{digest}'" for digest in digests)
