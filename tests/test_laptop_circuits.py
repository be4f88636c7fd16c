"""The experiment `laptop-circuits`: what becomes of the sizes of circuits."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from sparse_gpt.experiments import laptop_circuits
from sparse_gpt.io import write_json
from tests import report_workdirs


@pytest.mark.slow
def test_sizes_of_the_laptop_models_circuits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Means over the tasks that the short search refined; the quote circuit of the preset's own search beside them."""
    circuit, _ = report_workdirs.quote_circuit()
    edges = {"single_double_quote": (40, 20, 10), "for_while": (90, 80, 40), "class_init": (999,)}  # by stage

    def finish(name: str, *flags: str) -> None:
        if name == "prune":
            assert set(laptop_circuits.SHORTER) < set(flags)
            for task, sizes in edges.items():
                place = tmp_path / "laptop" / "circuits" / task
                named = zip(laptop_circuits.STAGES, sizes, strict=False)
                stages = [{"stage": stage, "nodes": 1, "edges": count} for stage, count in named]
                write_json(place / "circuit.json", {**circuit, "task": task})
                write_json(place / "search.json", {**report_workdirs.search(circuit), "task": task, "stages": stages})

    def prune(workdir: Path, task: str, *flags: str) -> SimpleNamespace:
        assert (workdir, task, flags) == (tmp_path / "single_double_quote", "single_double_quote", ())
        return SimpleNamespace(edges=26 * ["an edge"])

    monkeypatch.setattr(laptop_circuits, "finish", finish)
    monkeypatch.setattr(laptop_circuits, "prune", prune)
    found = {x.name: (x.measured, x.holds) for x in laptop_circuits.laptop_circuits(tmp_path)}
    assert found["tasks with a circuit"] == (3, False)
    assert found["edges of circuits that were not refined"] == ("class_init: 999", True)
    assert found["edges of the quote circuit"] == (26, False)
    means = [value for name, (value, _) in found.items() if "geometric mean" in name]
    assert means == pytest.approx([60, 40, 20])
    assert (tmp_path / "laptop-circuits.csv").read_text().count("\n") == 4
