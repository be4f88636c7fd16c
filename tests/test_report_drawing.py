"""The drawing of a circuit: what it joins, that nothing overlaps, that it stands alone."""

import random
import xml.etree.ElementTree as ElementTree
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from sparse_gpt.drawing import placement
from sparse_gpt.drawing.graph import MAX_TOKENS, Graph, build_graph
from sparse_gpt.drawing.labels import CHARACTER, LINE, curves, place_labels
from sparse_gpt.drawing.layout import LEGIBLE, NODE_HEIGHT, Layout, lay_out
from sparse_gpt.drawing.text import number
from sparse_gpt.errors import InputError
from sparse_gpt.records import Circuit, Traces
from sparse_gpt.report import CircuitDrawing, draw_circuit
from tests import report_workdirs as workdirs

SVG = "{http://www.w3.org/2000/svg}"


def graph_of(circuit: dict[str, Any], traces: dict[str, Any] | None = None, d_head: int = 0) -> Graph:
    record = None if traces is None else Traces.from_tree(traces)
    return build_graph(Circuit.from_tree(circuit), record, d_head, MAX_TOKENS)


def _subcircuit(seed: int, nodes: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A random part of the messy circuit, with the edges that remain."""
    circuit, traces = workdirs.messy_circuit(60, 120)
    kept = random.Random(seed).sample(circuit["nodes"], nodes)
    keys = {(node["layer"], node["site"], node["channel"]) for node in kept}
    edges = [edge for edge in circuit["edges"] if tuple(edge["from"]) in keys and tuple(edge["to"]) in keys]
    return circuit | {"nodes": kept, "edges": edges}, traces


def _large_circuit() -> tuple[dict[str, Any], dict[str, Any]]:
    """240 nodes of one layer, with 1,500 of the edges between them."""
    circuit, traces = workdirs.quote_circuit()
    widths = dict.fromkeys(workdirs.SITES, 32) | dict.fromkeys(("attn_q", "attn_k", "attn_v"), 16) | {"mlp_neuron": 64}
    nodes = [(0, site, channel) for site in workdirs.SITES for channel in range(widths[site])]
    draw = random.Random(5)
    joined = [(a, b) for a in nodes for b in nodes if b[1] in workdirs.JOINS.get(a[1], ())]
    return circuit | {
        "nodes": [{"layer": layer, "site": site, "channel": channel} for layer, site, channel in nodes],
        "edges": [{"from": list(a), "to": list(b), "weight": draw.gauss(0, 1)} for a, b in draw.sample(joined, 1500)],
    }, traces


CASES = {
    "quote": workdirs.quote_circuit(),
    "messy": workdirs.messy_circuit(),
    "five": _subcircuit(0, 5),
    "twenty": _subcircuit(1, 20),
    "fifty": _subcircuit(2, 50),
    "quote without traces": (workdirs.quote_circuit()[0], None),
    "one node": (
        workdirs.quote_circuit()[0] | {"nodes": [{"layer": 1, "site": "attn_q", "channel": 3}], "edges": []},
        None,
    ),
}


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> tuple[dict[str, Any], dict[str, Any] | None]:
    return CASES[request.param]


def test_every_node_and_edge_is_there(case: tuple) -> None:
    circuit, traces = case
    svg = ElementTree.fromstring(draw_circuit(circuit, traces))
    drawn = {g.get("data-node") for g in svg.iter(f"{SVG}g") if (g.get("class") or "").startswith("node ")}
    assert {f"{n['layer']}.{n['site']}.{n['channel']}" for n in circuit["nodes"]} <= drawn
    edges = [p for p in svg.iter(f"{SVG}path") if (p.get("class") or "").startswith("wire block ")]
    found = Counter((p.get("data-from"), p.get("data-to"), (p.get("class") or "").split()[-1]) for p in edges)
    dotted = [(".".join(map(str, e["from"])), ".".join(map(str, e["to"])), e["weight"]) for e in circuit["edges"]]
    assert found == Counter((a, b, "positive" if w > 0 else "negative") for a, b, w in dotted)
    heaviest = sorted(edges, key=lambda p: float(p.get("stroke-width") or 0))[-1:]
    assert [(p.get("data-from"), p.get("data-to")) for p in heaviest] == [
        (a, b) for a, b, w in dotted if abs(w) == max(abs(w) for *_, w in dotted)
    ]


def test_nothing_overlaps_or_is_cut_off(case: tuple) -> None:
    layout = lay_out(graph_of(*case))
    boxes = list(layout.boxes.values())
    for box in boxes:
        assert box.left >= 0
        assert box.right <= layout.width
        assert NODE_HEIGHT / 2 <= box.y <= layout.height - NODE_HEIGHT / 2
    for a, b in combinations(boxes, 2):
        apart = a.right <= b.left or b.right <= a.left or abs(a.y - b.y) >= NODE_HEIGHT + 4
        assert apart or "port" in (a.kind, b.kind) or a.y == b.y != a.x, (a, b)
        assert (a.x, a.y) != (b.x, b.y), (a, b)
    for a, b in combinations(layout.sublayers, 2):  # titles, at 7.2 px a character
        assert abs(a.x - b.x) >= 7.2 * (len(a.title) + len(b.title)) / 2, (a, b)
    for heading in layout.sublayers:
        half = 7.2 * len(heading.title) / 2
        assert half <= heading.x <= layout.width - half, heading


def test_lines_of_residual_channels_touch_only_their_own_nodes(case: tuple) -> None:
    graph = graph_of(*case)
    layout = lay_out(graph)
    for channel in graph.channels:
        steps = [layout.boxes[key] for key in channel.steps]
        assert len({box.y for box in steps}) == 1, channel
        assert [box.x for box in steps] == sorted(box.x for box in steps), channel
        if not channel.links:
            continue
        start = min(layout.boxes[a].right for a, _ in channel.links)
        end = max(layout.boxes[b].left for _, b in channel.links)
        for box in layout.boxes.values():
            crossed = start < box.x < end and abs(box.y - steps[0].y) < NODE_HEIGHT / 2
            assert not crossed or box.key in channel.steps, (channel, box)


def test_links_go_from_writes_to_later_reads() -> None:
    circuit, traces = workdirs.quote_circuit()
    links = {link for channel in graph_of(circuit, traces).channels for link in channel.links}
    assert links == {
        ("embed:17", "0.mlp_in.17"),
        ("embed:90", "0.mlp_in.90"),
        ("0.mlp_out.45", "1.attn_in.45"),
        ("0.mlp_out.110", "1.attn_in.110"),
        ("1.attn_out.77", "unembed:77"),
    }
    # A read before the write of its channel is not joined to it; a write never to a write, a read never to a read.
    nodes = [(0, "attn_in", 5), (0, "attn_out", 5), (0, "mlp_in", 5), (0, "mlp_out", 5), (1, "attn_in", 5)]
    circuit |= {"nodes": [{"layer": a, "site": b, "channel": c} for a, b, c in nodes], "edges": []}
    (channel,) = graph_of(circuit, traces | {"embedding": [], "unembedding": []}).channels
    assert set(channel.links) == {
        ("0.attn_out.5", "0.mlp_in.5"),
        ("0.attn_out.5", "1.attn_in.5"),
        ("0.mlp_out.5", "1.attn_in.5"),
    }


def test_position_channels_are_not_residual_channels() -> None:
    circuit, traces = workdirs.quote_circuit()
    circuit["nodes"].append({"layer": 0, "site": "attn_in", "channel": 130})  # d_model is 128
    traces["embedding"].append({"token": "x", "token_id": 9, "channel": 130, "weight": 9.0})
    graph = graph_of(circuit, traces)
    assert [channel.links for channel in graph.channels if channel.index == 130] == [()]
    assert lay_out(graph).boxes["0.attn_in.130"].label == "pos 2"


def test_heads_are_framed_and_their_q_and_k_paired() -> None:
    circuit, traces = workdirs.quote_circuit()
    (frame,) = lay_out(graph_of(circuit, traces)).frames
    assert frame.title == "h3"  # channels 52 and 61 of width-16 heads
    assert frame.pairs == (("1.attn_q.61", "1.attn_k.61"),)
    del traces["d_head"]
    unknown: Layout = lay_out(graph_of(circuit, traces))
    assert [f.title for f in unknown.frames] == [""]
    assert [f.title for f in lay_out(graph_of(circuit, traces, d_head=32)).frames] == ["h1"]


def test_labels_are_legible(case: tuple) -> None:
    graph = graph_of(*case)
    layout = lay_out(graph)
    labels = place_labels(curves(graph.edges, layout.boxes), layout.boxes.values())
    assert len(labels) == len(graph.edges)
    shown = [label for label in labels.values() if label.shown]
    assert len(shown) >= 0.9 * len(labels)
    for a, b in combinations(shown, 2):
        half = CHARACTER * (len(a.text) + len(b.text)) / 2
        assert abs(a.x - b.x) >= half or abs(a.y - b.y) >= LINE - 1e-6, (a, b)
    for label in shown:
        for box in layout.boxes.values():
            beside = abs(label.x - box.x) >= (CHARACTER * len(label.text) + box.width) / 2
            assert beside or abs(label.y - box.y) >= (LINE + NODE_HEIGHT) / 2 - 1e-6, (label, box)


def test_heaviest_wires_of_a_large_circuit_stand_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "MAX_WORK", 0)
    svg = ElementTree.fromstring(draw_circuit(*_large_circuit()))
    edges: dict[str, list[tuple[float, bool]]] = {}
    for edge in svg.iter(f"{SVG}path"):
        if (edge.get("class") or "").startswith("wire block "):
            site = (edge.get("data-from") or "").split(".")[1]
            width, bold = float(edge.get("stroke-width") or 0), edge.get("stroke-opacity") is None
            edges.setdefault(site, []).append((width, bold))
    assert sum(map(len, edges.values())) == 1500, "none is left out"
    for leaving in edges.values():
        full = [width for width, bold in leaving if bold]
        assert len(full) == min(LEGIBLE, len(leaving))
        assert min(full) >= max((width for width, bold in leaving if not bold), default=0.0)
    pale = 1500 - sum(min(LEGIBLE, len(leaving)) for leaving in edges.values())
    assert f"Pale, without their numbers: {number(pale)} weights" in "".join(svg.itertext())
    numbers = [g.get("class") or "" for g in svg.iter(f"{SVG}g") if (g.get("class") or "").startswith("weight ")]
    assert sum("crowded" not in kind for kind in numbers) <= 6 * LEGIBLE


def test_work_of_placing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one round over all channels too: with 1,000 channels, a round is a million evaluations."""
    graph, arranged = graph_of(*_large_circuit()), []
    monkeypatch.setattr(placement, "MAX_WORK", 100_000)  # a round looks at 32 * 32 * 1,800 things
    arrange = placement._arrange
    monkeypatch.setattr(placement, "_arrange", lambda *given: arranged.append(1) or arrange(*given))
    lay_out(graph)
    assert 100 < len(arranged) <= 100_000 // 1500 + 12 * placement.RESTARTS + 2


def test_crossings_are_counted_without_comparing_all_pairs() -> None:
    class Row(float):
        compared = 0

        def __lt__(self, other: float) -> bool:
            Row.compared += 1
            return float(self) < other

        def __sub__(self, other: float) -> float:
            Row.compared += 1
            return float(self) - other

    draw = random.Random(6)
    edges = [(float(draw.randrange(40)), float(draw.randrange(40))) for _ in range(500)]
    crossing = sum((a - c) * (b - d) < 0 for (a, b), (c, d) in combinations(edges, 2))
    assert placement._crossings([(Row(a), Row(b)) for a, b in edges]) == crossing
    assert 0 < Row.compared < len(edges) ** 2 / 10


def test_tokens_that_tell_prompts_apart_are_drawn_first() -> None:
    circuit, traces = workdirs.quote_circuit()
    traces["embedding"] = [{"token": f"t{i}", "token_id": i, "channel": 17, "weight": 0.1 * i} for i in range(1, 41)]
    traces["embedding"].append({"token": "('", "token_id": 99, "channel": 17, "weight": 0.001})
    graph = graph_of(circuit, traces)
    assert set(graph.tokens) == {"token:99"} | {f"token:{i}" for i in range(30, 41)}
    assert graph.omitted == 29


def test_stands_alone(case: tuple) -> None:
    text = draw_circuit(*case)
    svg = ElementTree.fromstring(text)
    assert svg.tag == f"{SVG}svg"
    assert "prefers-color-scheme: dark" in text
    for element in svg.iter():
        assert not {name for name in element.attrib if name.endswith("href") or name.startswith("on")}
    assert "url(" not in text
    assert f"{SVG}script" not in {element.tag for element in svg.iter()}
    assert draw_circuit(*case) == text, "the same circuit is to give the same picture"


def test_empty_circuit_says_so() -> None:
    circuit, traces = workdirs.quote_circuit()
    assert "This circuit has no nodes." in draw_circuit(circuit | {"nodes": [], "edges": []}, traces)


def test_edge_to_a_node_outside_the_circuit_is_refused() -> None:
    circuit, traces = workdirs.quote_circuit()
    circuit["edges"][3]["from"] = [7, "mlp_in", 90]
    with pytest.raises(InputError, match=r"7.mlp_in.90, which is not among the nodes"):
        draw_circuit(circuit, traces)


def test_drawing_for_notebooks(tmp_path: Path) -> None:
    folder = workdirs.write_workdir(tmp_path / "run") / "circuits/single_double_quote"
    drawing = CircuitDrawing.load(folder)
    assert drawing._repr_svg_() == draw_circuit(*workdirs.quote_circuit())
    assert drawing.svg in drawing._repr_html_()
    assert drawing.save(tmp_path / "circuit.svg").read_text(encoding="utf-8") == drawing.svg
    (folder / "traces.json").unlink()
    assert ">h3<" in CircuitDrawing.load(folder).svg, "without traces, d_head comes from config.json"
    with pytest.raises(InputError, match=r"no circuit.json in it; python -m launch.prune writes one"):
        CircuitDrawing.load(tmp_path)
