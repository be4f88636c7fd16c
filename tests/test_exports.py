"""Circuits in the formats of other programs, and the names that people give."""

import csv
import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from sparse_gpt.circuits import storage
from sparse_gpt.drawing.graph import MAX_TOKENS, build_graph
from sparse_gpt.errors import InputError
from sparse_gpt.exports import export_circuit
from sparse_gpt.exports.attribution_graph import AttributionGraph, attribution_graph
from sparse_gpt.exports.files import SCRATCH
from sparse_gpt.records import Labels, Traces, converted, read_circuit
from sparse_gpt.report import CircuitDrawing, build_report
from tests import report_workdirs as workdirs
from tests.inprocess import launch_here

TASK = "single_double_quote"
D_HEAD = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return workdirs.write_workdir(tmp_path / "run")


def labels(folder: Path, **changes: Any) -> None:
    circuit = read_circuit(folder / "circuits" / TASK).circuit
    node = {"layer": 0, "site": "mlp_neuron", "channel": 201, "label": "“open” <quote>\x07"}
    group = {"name": "quotes", "nodes": [[0, "mlp_neuron", 201], [0, "mlp_neuron", 333]]}
    tree = {"format": Labels.FORMAT, "task": TASK, "params_sha256": circuit.params_sha256, "nodes": [node]}
    tree |= {"groups": [group], "reading": "It copies & closes.", **changes}
    workdirs.write_json(folder / "circuits" / TASK / "labels.json", tree)


def test_tables_and_graphml_hold_every_node_and_edge(folder: Path, tmp_path: Path) -> None:
    labels(folder)
    files = read_circuit(folder / "circuits" / TASK)
    paths = export_circuit(files, D_HEAD, "run", tmp_path / "out")
    assert {path.name for path in paths} == {
        "nodes.csv",
        "edges.csv",
        "circuit.graphml",
        "circuit.svg",
        "attribution_graph.json",
    }
    nodes = list(csv.DictReader((tmp_path / "out/nodes.csv").read_text(encoding="utf-8").splitlines()))
    own = {row["id"]: row for row in nodes if row["kind"] == "node"}
    assert set(own) == {entry.node.key for entry in files.circuit.nodes}
    assert own["0.mlp_neuron.333"]["group"] == own["0.mlp_neuron.201"]["group"] == "quotes"
    assert own["0.mlp_neuron.201"]["label"].startswith("“open” <quote>")
    edges = list(csv.DictReader((tmp_path / "out/edges.csv").read_text(encoding="utf-8").splitlines()))
    block = {(row["source"], row["target"]): float(row["weight"]) for row in edges if row["kind"] == "block"}
    assert block == {(e.source.key, e.target.key): e.weight for e in files.circuit.edges}
    known = {row["id"] for row in nodes}
    assert all(row["source"] in known and row["target"] in known for row in edges)
    assert {row["kind"] for row in edges} >= {"block", "embedding", "unembedding", "residual"}

    root = ElementTree.parse(tmp_path / "out/circuit.graphml").getroot()
    space = "{http://graphml.graphdrawing.org/xmlns}"
    drawn = root.find(f"{space}graph")
    assert drawn is not None
    assert [e.get("id") for e in drawn.iter(f"{space}node")] == [row["id"] for row in nodes]
    assert len(list(drawn.iter(f"{space}edge"))) == len(edges)
    keys = {e.get("id") for e in root.iter(f"{space}key")}
    assert {e.get("key") for e in drawn.iter(f"{space}data")} <= keys
    assert "It copies & closes." in (root.findtext(f"{space}desc") or "")


def _object(kinds: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": {**kinds, **(optional or {})}, "required": list(kinds)}


def _all_of(kind: str, *names: str) -> dict[str, Any]:
    return {name: {"type": kind} for name in names}


def _list_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


# What the schema that Neuronpedia checks uploads with (hijohnnylin/neuronpedia, apps/webapp/app/api/graph/
# graph-schema.json, version 1.0.0) asks of what is written here.
ATTRIBUTION_GRAPHS = jsonschema.Draft7Validator(
    _object(
        {
            "metadata": _object(
                {**_all_of("string", "slug", "scan", "prompt"), "prompt_tokens": _list_of({"type": "string"})},
                {"info": _object({}, {"description": {"type": "string"}, "generator": {"type": "object"}})},
            ),
            "qParams": _object(
                {},
                {
                    "pinnedIds": _list_of({"type": "string"}),
                    "supernodes": {"type": "array"},
                    **_all_of("string", "linkType", "clickedId"),
                },
            ),
            "nodes": _list_of(
                _object(
                    {
                        **_all_of("string", "node_id", "feature_type", "jsNodeId", "clerp"),
                        "feature": {"type": ["integer", "null"]},
                        "layer": {"type": ["string", "integer"]},
                        "ctx_idx": {"type": "integer"},
                    },
                    {name: {"type": ["number", "null"]} for name in ("influence", "activation")},
                )
            ),
            "links": _list_of(_object({**_all_of("string", "source", "target"), "weight": {"type": "number"}})),
        }
    )
)


def test_groups_of_attribution_graphs_hold_nodes_of_the_file(folder: Path) -> None:
    """Of a node that nothing is linked to at a position nothing is written, also not as a member of a group."""
    place = folder / "circuits" / TASK
    circuit = read_circuit(place).circuit
    labels(folder, nodes=[], groups=[{"name": "all", "nodes": [list(entry.node) for entry in circuit.nodes]}])
    files = read_circuit(place)
    assert files.traces is not None
    graph = build_graph(files.circuit, files.traces, D_HEAD)
    for sample in range(len(files.traces.samples)):
        found = attribution_graph(graph, files.circuit, files.traces, files.labels, "run", sample)
        assert set(found["qParams"]["pinnedIds"]) <= {node["node_id"] for node in found["nodes"]}


def test_tables_hold_every_entry_of_embedding_and_unembedding(folder: Path, tmp_path: Path) -> None:
    """A drawing shows tokens of the largest weights alone."""
    place = folder / "circuits" / TASK
    circuit, traces = read_circuit(place).circuit, read_circuit(place).traces
    assert traces is not None
    reads = next(entry.node for entry in circuit.nodes if entry.node.site == "attn_in")
    writes = next(entry.node for entry in circuit.nodes if entry.node.site == "mlp_out")
    many: dict[str, Any] = {
        name: [{"token_id": i, "token": str(i), "channel": node.channel, "weight": 0.5} for i in range(40)]
        for name, node in (("embedding", reads), ("unembedding", writes))
    }
    workdirs.write_json(place / "traces.json", {**traces.tree(), **many})
    export_circuit(read_circuit(place), D_HEAD, "run", tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out/edges.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["source"] for row in rows if row["kind"] == "embedding"} == {f"token:{i}" for i in range(40)}
    assert {row["target"] for row in rows if row["kind"] == "unembedding"} == {f"answer:{i}" for i in range(40)}
    assert len(build_graph(circuit, read_circuit(place).traces, D_HEAD, MAX_TOKENS).tokens) == MAX_TOKENS


@pytest.mark.parametrize(("difference", "share"), [(-1000.0, 0.0), (1000.0, 1.0), (-2.0, 0.1192029)])
def test_shares_of_answer_and_foil_however_far_apart(folder: Path, difference: float, share: float) -> None:
    place = folder / "circuits" / TASK
    circuit, traces = read_circuit(place).circuit, read_circuit(place).traces
    assert traces is not None
    tree = traces.tree()
    tree["samples"][0]["logit_difference_circuit"] = difference
    changed = Traces.from_tree(tree)
    found = attribution_graph(build_graph(circuit, changed, D_HEAD), circuit, changed, None, "run")
    assert [n["token_prob"] for n in found["nodes"] if n["feature_type"] == "logit"] == pytest.approx(
        [share, 1 - share]
    )


def test_attribution_graphs_are_as_other_programs_read_them(folder: Path, tmp_path: Path) -> None:
    labels(folder)
    files = read_circuit(folder / "circuits" / TASK)
    export_circuit(files, D_HEAD, "run", tmp_path / "out")
    tree = json.loads((tmp_path / "out" / "attribution_graph.json").read_text(encoding="utf-8"))
    assert not list(ATTRIBUTION_GRAPHS.iter_errors(tree))
    unnamed = {**tree, "nodes": [{**tree["nodes"][0], "clerp": None}], "links": [{"source": "a", "target": "b"}]}
    assert len(list(ATTRIBUTION_GRAPHS.iter_errors(unnamed))) == 2
    converted(tree, AttributionGraph)
    with pytest.raises(InputError, match="weight"):
        converted({**tree, "links": [{"source": "a", "target": "b"}]}, AttributionGraph)
    ids = [node["node_id"] for node in tree["nodes"]]
    assert len(set(ids)) == len(ids)
    assert all(link["source"] in ids and link["target"] in ids for link in tree["links"])
    by_id = {node["node_id"]: node for node in tree["nodes"]}
    named = [node for node in tree["nodes"] if node["clerp"].startswith("“open”")]
    assert named
    (group,) = tree["qParams"]["supernodes"]
    assert group[0] == "quotes"
    assert {node["node_id"] for node in named} <= set(group[1:])
    # A link within a block: weight times value.
    assert files.traces is not None
    edge = next(e for e in files.circuit.edges if e.source.key == "0.mlp_neuron.201")
    values = files.traces.samples[0].values[edge.source.key]
    brought = [link for link in tree["links"] if by_id[link["source"]] in named]
    expected = {round(edge.weight * value, 5) for value in values if value}
    assert expected & {round(link["weight"], 5) for link in brought}
    logits = [node for node in tree["nodes"] if node["feature_type"] == "logit"]
    assert sum(node["token_prob"] for node in logits) == pytest.approx(1)
    assert [node["is_target_logit"] for node in logits] == [True, False]


def test_names_are_in_drawing_and_report(folder: Path) -> None:
    before = CircuitDrawing.load(folder / "circuits" / TASK).svg
    labels(folder)
    svg = CircuitDrawing.load(folder / "circuits" / TASK).svg
    assert "“open” &lt;quote&gt;" in svg
    assert "[quotes]" in svg
    assert "“open”" not in before
    page = build_report(folder).read_text(encoding="utf-8")
    assert "It copies &amp; closes." in page


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"params_sha256": "ab" * 32}, "belongs to another circuit (single_double_quote, weights abababababab)"),
        ({"task": "other"}, "belongs to another circuit (other, weights"),
        ({"nodes": [{"layer": 9, "site": "mlp_out", "channel": 0, "label": "x"}]}, "names 1 nodes that this circuit"),
    ],
)
def test_names_of_another_circuit_are_said_and_left_aside(folder: Path, changes: dict[str, Any], said: str) -> None:
    labels(folder, **changes)
    files = read_circuit(folder / "circuits" / TASK)
    assert said in files.labels_problem
    assert not (files.labels and files.labels.by_key)
    assert said in build_report(folder).read_text(encoding="utf-8")


def test_the_script_and_what_it_refuses(folder: Path, tmp_path: Path) -> None:
    labels(folder, task="other")
    done = launch_here("export", f"--workdir={folder}", f"--task={TASK}", f"--output={tmp_path / 'a'}")
    assert done.returncode == 0
    assert "left aside" in done.stderr
    assert (tmp_path / "a/circuit.graphml").exists()
    wrong = launch_here("export", f"--workdir={folder}", "--task=nothing", f"--output={tmp_path / 'b'}")
    assert wrong.returncode == 2
    assert "no such circuit; there are: bracket_counting, single_double_quote" in wrong.stderr
    assert not (tmp_path / "b").exists()
    for several in ("bracket_counting,single_double_quote", "all", ","):
        one = launch_here("export", f"--workdir={folder}", f"--task={several}", f"--output={tmp_path / 'b'}")
        assert (one.returncode, one.stderr.count("\n")) == (2, 1)
        assert f"--task={several}: name one circuit" in one.stderr
    (folder / "circuits" / TASK / "labels.json").write_text('{"format": "sparse_gpt.labels/1"}')
    broken = launch_here("export", f"--workdir={folder}", f"--task={TASK}", f"--output={tmp_path / 'c'}")
    assert broken.returncode == 2
    assert len(broken.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("pairs", "my/pairs.jsonl"),
        ("pairs", "pairs.CSV,"),
        ("pairs+bracket_counting", "b/pairs.csv+bracket_counting"),
        ("a.csv", "a.csv"),
        ("a.csv", "my+own/a.csv.jsonl"),
    ],
)
def test_a_circuit_of_a_file_is_found_by_the_file(folder: Path, tmp_path: Path, name: str, task: str) -> None:
    (folder / "circuits" / TASK).rename(folder / "circuits" / name)
    done = launch_here("export", f"--workdir={folder}", f"--task={task}", f"--output={tmp_path / 'a'}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a/nodes.csv").exists()


def test_a_folder_that_holds_anything_but_an_export_is_left_alone(folder: Path, tmp_path: Path) -> None:
    place = folder / "circuits" / TASK
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    done = launch_here("export", f"--workdir={folder}", f"--task={TASK}", f"--output={place}")
    assert done.returncode == 2
    assert f"--output={place}: is there already and not empty (card.json); choose a new folder" in done.stderr
    with pytest.raises(InputError, match="not empty"):
        export_circuit(read_circuit(place), D_HEAD, "run", place)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    (tmp_path / "empty").mkdir()
    for _ in range(2):  # the second time there is an export
        done = launch_here("export", f"--workdir={folder}", f"--task={TASK}", f"--output={tmp_path / 'empty'}")
        assert done.returncode == 0, done.stderr


def test_an_export_that_fails_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.name == "circuit.svg":
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr("sparse_gpt.exports.files.write_atomic", full)
    with pytest.raises(InputError, match=r"circuit\.svg: cannot be written"):
        export_circuit(read_circuit(folder / "circuits" / TASK), D_HEAD, "run", tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("step", ["write", "move"])
def test_an_export_takes_the_place_of_an_earlier_one_whole_or_not_at_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    place, output = folder / "circuits" / TASK, tmp_path / "out"
    export_circuit(read_circuit(place), D_HEAD, "run", output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    labels(folder)
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "circuit.svg" and (step == "write" or Path(source).parent.name == "new"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as failing:
        failing.setattr(os, "replace", full)
        with pytest.raises(InputError, match="no space left"):
            export_circuit(read_circuit(place), D_HEAD, "run", output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    (place / "traces.json").unlink()
    (output / SCRATCH).mkdir()
    (output / SCRATCH / "nodes.csv").write_text("of a process that was killed")
    assert len(export_circuit(read_circuit(place), D_HEAD, "run", output)) == 4
    assert {path.name for path in output.iterdir()} == before.keys() - {"attribution_graph.json"}
    assert (output / "nodes.csv").read_bytes() != before["nodes.csv"]


def test_names_outlive_a_new_search(tmp_path: Path) -> None:
    class Found:
        def save(self, folder: Path) -> None:
            folder.mkdir(parents=True)
            (folder / "circuit.json").write_text("{}")

    place, unfinished = tmp_path / "circuits/x", tmp_path / "searches/x"
    for folder in (place, unfinished):
        folder.mkdir(parents=True)
    (place / "labels.json").write_text("names")
    (place / "page.html").write_text("of the old circuit")
    found: Any = Found()
    storage.finish(found, unfinished, place)
    assert {path.name: path.read_text() for path in place.iterdir()} == {"circuit.json": "{}", "labels.json": "names"}
