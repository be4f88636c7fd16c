"""A circuit's page in a cell of a notebook (Jupyter, VS Code, Colab), at one state with a Python object."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparse_gpt import tasks
from sparse_gpt.circuits.circuit import Circuit
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.page.page import render
from sparse_gpt.page.samples import offered_samples
from sparse_gpt.records import Node
from sparse_gpt.workdir import Workdir

HEIGHT = 800  # pixels of the cell; the page scrolls in it
_SCRIPT = Path(__file__).with_name("notebook.js")


def view_circuit(run: Workdir, circuit: Circuit, task: str = "") -> Any:
    """The view of a circuit, see `Circuit.view`.

    Args:
      run: the model.
      circuit: one of its circuits.
      task: whose samples are offered; default: the circuit's own.

    Raises:
      InputError: anywidget is not installed, there is no such task, or the circuit does not fit the model.
    """
    kind = view_class()
    circuit.require_fit(run.config.model)
    try:
        members = [each for name in (task or circuit.task).split("+") for each in tasks.select(name)]
        samples = offered_samples(run, members, circuit)
    except tasks.TaskError as error:
        raise InputError(f"{error}; a circuit of one's own pairs: circuit.view('pairs.jsonl')") from error
    folder = run.folder / "circuits" / circuit.task
    return kind(circuit, render(run, folder, circuit, samples, hosted=True))


@functools.cache
def view_class() -> type:
    """The widget's class, made when it is first asked for, because anywidget is optional."""
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise InputError("the view of a circuit needs anywidget; install it: pip install anywidget") from error

    class CircuitView(anywidget.AnyWidget):
        """A circuit's page in a cell. Its state can be read, set and observed, before the page is shown and after.

        Attributes:
            prompt: text; None until the page is shown, which then offers a sample.
            twin: the prompt that is patched from.
            node: the chosen node, or None.
            position: the chosen token, or None for the last one.
            changes: what was changed, as plain objects; `off` is the part of them that is most asked for.
        """

        _esm = _SCRIPT.read_text(encoding="utf-8")
        page = traitlets.Unicode().tag(sync=True)
        title = traitlets.Unicode().tag(sync=True)
        height = traitlets.Int(HEIGHT).tag(sync=True)
        prompt = traitlets.Unicode(None, allow_none=True).tag(sync=True)
        twin = traitlets.Unicode(None, allow_none=True).tag(sync=True)
        node = traitlets.Any(None).tag(sync=True, to_json=_to_key, from_json=_from_key)
        position = traitlets.Int(None, allow_none=True, min=0).tag(sync=True)
        changes = traitlets.List(traitlets.Dict()).tag(sync=True)

        def __init__(self, circuit: Circuit, page: str):
            self.circuit = circuit
            super().__init__(page=page, title=f"Circuit of {circuit.task}")

        @traitlets.validate("node")
        def _known(self, proposal: Tree) -> Node | None:
            value = proposal["value"]
            return None if value is None else self._own(value)

        def _own(self, value: Sequence[Any]) -> Node:
            node = Node(*value)
            if node not in self.circuit.nodes:
                raise InputError(f"node {node.key}: not in the circuit of {self.circuit.task}")
            return node

        @property
        def off(self) -> tuple[Node, ...]:
            """Nodes that are switched off, in the circuit, the full model or both. Those that one sets are off in both,
            and all others on."""
            return tuple(Node(*change["node"]) for change in self.changes if change["kind"] == "off")

        @off.setter
        def off(self, nodes: Sequence[Node]) -> None:
            known = dict(zip(self.off, _off(self.changes), strict=True))
            added = [
                known.get(node, {"kind": "off", "node": list(node), "where": "both", "at": None})
                for node in dict.fromkeys(self._own(each) for each in nodes)
            ]
            self.changes = [change for change in self.changes if change["kind"] != "off"] + added

        def _repr_mimebundle_(self, **options: Any) -> Any:
            """The widget; where none can run, such as on a page made of the notebook, the circuit's drawing."""
            shown: Any = super()._repr_mimebundle_(**options)
            data, *rest = shown
            return ({**data, "text/html": self.circuit._repr_html_()}, *rest)

    return CircuitView


def _off(changes: Sequence[Tree]) -> list[Tree]:
    return [change for change in changes if change["kind"] == "off"]


def _to_key(node: Node | None, view: object) -> str | None:
    del view
    return None if node is None else node.key


def _from_key(key: str | None, view: object) -> Node | None:
    del view
    if key is None:
        return None
    layer, site, channel = key.split(".")
    return Node(int(layer), site, int(channel))
