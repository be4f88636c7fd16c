"""Template families and the minimal circuit in the report, and in the drawing."""

from typing import Any

import pytest

from sparse_gpt.drawing.svg import draw_circuit
from sparse_gpt.errors import InputError
from sparse_gpt.records import Circuit
from sparse_gpt.report.rendering import fill
from tests import report_workdirs


def family(name: str, role: str, loss: float) -> dict[str, Any]:
    shares = {"accuracy": 0.5, "agreement": 0.75, "full_model_task_loss": 0.25}
    return {"family": name, "role": role, "task_loss": loss, **shares}


def nested() -> dict[str, Any]:
    """The quote circuit as a complete one, with its first five nodes as the minimal one."""
    tree, _ = report_workdirs.quote_circuit()
    kept = {(n["layer"], n["site"], n["channel"]) for n in tree["nodes"][:5]}
    edges = [e for e in tree["edges"] if tuple(e["from"]) in kept and tuple(e["to"]) in kept]
    own = [family("main", "searched", 0.0625), family("<b>", "left aside", 1.5), family("new", "novel", 2.5)]
    minimal = {"nodes": tree["nodes"][:5], "edges": edges, "metrics": {"task_loss": 0.0625}, "families": own}
    minimal["calibration"], tree["calibration"] = {"scale": 10.5}, {"scale": 1.5}
    families = [family("main", "searched", 0.125), family("<b>", "searched", 0.375), family("new", "novel", 0.5)]
    return {**tree, "families": [*families, family("text", "wild", 0.875)], "minimal": minimal}


def shown(tree: dict[str, Any], **facts: object) -> str:
    return " ".join(fill("families.html", circuit=Circuit.from_tree(tree), **facts).split("\n"))


def test_pairs_of_a_file_are_not_said_to_have_words_of_their_own() -> None:
    assert "on held-out words;" in shown(nested(), of_file=False)
    assert "on held-out pairs;" in shown(nested(), of_file=True)


def test_every_family_has_a_row_with_the_losses_of_both_circuits() -> None:
    table = shown(nested())
    rows = [row.split("</tr>")[0] for row in table.split("<tr>")[2:]]
    assert len(rows) == 4
    for row, cells in zip(rows, (("main", "0.125", "0.062"), ("&lt;b&gt;", "0.375", "1.50"), ("new", "0.500", "2.50"),
                                 ("text", "0.875", "–")), strict=True):  # fmt: skip
        assert all(cell in row for cell in cells), (row, cells)
    assert "natural text" in rows[3]
    assert "seen by no search" in rows[2]
    assert "<b>" not in table
    alone = nested() | {"minimal": None}
    assert "minimal circuit" not in shown(alone)
    assert shown(report_workdirs.quote_circuit()[0]) == ""


def test_the_minimal_circuit_is_told_and_drawn_in_bold() -> None:
    circuit = Circuit.from_tree(nested())
    assert circuit.minimal is not None
    more = len(circuit.nodes) - 5, len(circuit.edges) - len(circuit.minimal.edges)
    note = shown(nested())
    assert "5 nodes" in note
    assert f"The other {more[0]} nodes and {more[1]} edges" in note
    assert "multiplied by 10.5 (those of the whole circuit by 1.50)" in note
    drawn = draw_circuit(circuit)
    marked = {part.split('"')[0] for part in drawn.split('core" data-node="')[1:]}
    assert marked == {entry.node.key for entry in circuit.minimal.nodes}
    plain = Circuit.from_tree(report_workdirs.quote_circuit()[0])
    assert 'core" data-node' not in draw_circuit(plain)


def test_a_minimal_circuit_lies_inside() -> None:
    tree = nested()
    tree["minimal"]["nodes"] = [*tree["minimal"]["nodes"], {"layer": 1, "site": "attn_v", "channel": 1}]
    with pytest.raises(InputError, match=r"the minimal circuit has 1\.attn_v\.1, which is not among the nodes"):
        Circuit.from_tree(tree)
