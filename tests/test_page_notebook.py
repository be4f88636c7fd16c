"""The view of a circuit in a notebook: in a real kernel, and its script with the page in a real browser."""

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import sparse_gpt as sg
from sparse_gpt.errors import InputError
from sparse_gpt.page import notebook
from tests.browser import Page
from tests.page_workdir import TASK, write_workdir

REPOSITORY = Path(__file__).resolve().parent.parent
# What widgets and the kernel's client say about themselves.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_workdir(tmp_path_factory.mktemp("notebook") / "run")


@pytest.fixture(scope="module")
def view(run: Path) -> Any:
    return sg.open(run).circuit(TASK).view(str(run / f"{TASK}.jsonl"))


def test_state_is_read_and_set_by_nodes(view: Any) -> None:
    first, second, third = view.circuit.nodes[:3]
    assert (view.prompt, view.node, view.off) == (None, None, ())
    view.node = first
    assert view.get_state(["node"]) == {"node": first.key}
    view.off = [first, second, first]
    assert view.off == (first, second)
    patch = {"kind": "patch", "node": list(third), "where": "full", "at": 2}
    view.set_state({"changes": [{**view.changes[0], "where": "circuit"}, patch], "node": third.key})
    assert view.node == third
    view.off = (*view.off, second)
    assert [change["where"] for change in view.changes] == ["full", "circuit", "both"]
    view.off = ()
    assert view.changes == [patch]
    view.node, view.changes = None, []
    outside = first._replace(channel=999)
    with pytest.raises(InputError, match="not in the circuit"):
        view.node = outside
    with pytest.raises(InputError, match="not in the circuit"):
        view.off = [outside]


def test_it_says_what_is_missing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = sg.open(run).circuit(TASK)
    with pytest.raises(InputError, match=r"circuit.view\('pairs.jsonl'\)"):
        circuit.view()
    with pytest.raises(InputError, match="only circuits that a model has given"):
        sg.Circuit.view(__import__("dataclasses").replace(circuit, viewer=None))
    monkeypatch.setitem(sys.modules, "anywidget", None)
    notebook.view_class.cache_clear()
    with pytest.raises(InputError, match="pip install anywidget"):
        circuit.view()
    notebook.view_class.cache_clear()


CELLS = """\
import sparse_gpt as sg
model = sg.open({run!r})
view = model.circuit({task!r}).view({pairs!r})
view.prompt = "first"
view
---
seen = []
view.observe(lambda change: seen.append(change["new"]), "prompt")
---
print(view.prompt, view.node, view.off, seen)
"""


@pytest.mark.slow
def test_it_runs_in_a_kernel(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    cells = CELLS.format(run=str(run), task=TASK, pairs=str(run / f"{TASK}.jsonl")).split("---\n")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(book, timeout=300, kernel_name="python3")
    node = sg.open(run).circuit(TASK).nodes[0]
    off = {"kind": "off", "node": list(node), "where": "circuit", "at": None}
    with client.setup_kernel():
        client.execute_cell(book.cells[0], 0)
        client.execute_cell(book.cells[1], 1)
        (shown,) = book.cells[0].outputs
        widget = shown.data["application/vnd.jupyter.widget-view+json"]["model_id"]
        assert "<svg" in shown.data["text/html"]  # where no widget runs
        state = {"prompt": "typed", "node": node.key, "changes": [off]}
        data = {"method": "update", "state": state, "buffer_paths": []}
        client.kc.shell_channel.send(client.kc.session.msg("comm_msg", {"comm_id": widget, "data": data}))
        client.execute_cell(book.cells[2], 2)
    (printed,) = book.cells[2].outputs
    assert printed.text == f"typed {node} {(node,)} ['typed']\n"


STUB = """<!DOCTYPE html><meta charset="utf-8"><title>cell</title>
<meta http-equiv="Content-Security-Policy" content="{policy}">
<div id="cell"></div><script type="module">
const values = {values}, listeners = {{}};
window.model = {{
  get: (name) => values[name],
  set: (name, value) => {{
    if (JSON.stringify(values[name]) === JSON.stringify(value)) return;
    values[name] = value;
    for (const listener of listeners[`change:${{name}}`] ?? []) listener();
  }},
  on: (name, listener) => (listeners[name] ??= []).push(listener),
  off: (name, listener) => (listeners[name] = listeners[name].filter((each) => each !== listener)),
  save_changes: () => (window.saved = (window.saved ?? 0) + 1),
}};
window.problems = [];
window.addEventListener("securitypolicyviolation", ({{ blockedURI }}) => problems.push(blockedURI));
const source = {script};
const {{ default: widget }} = await import(`data:text/javascript,${{encodeURIComponent(source)}}`);
window.end = widget.render({{ model: window.model, el: document.querySelector("#cell") }});
</script>"""
ANY = "default-src * 'unsafe-inline' blob: data:"
# As in notebooks of VS Code, whose frames inherit it: workers from data: alone.
STRICT = "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; child-src https: data:"


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("policy", [ANY, STRICT])
def test_a_cell_and_python_have_one_state(policy: str, view: Any, browser: Page, tmp_path: Path) -> None:
    node, other = view.circuit.nodes[:2]
    values = {name: view.get_state([name])[name] for name in ("title", "height", "page")}
    values |= {"prompt": "for set by python", "twin": None, "node": None, "position": None, "changes": []}
    told = json.dumps(values).replace("</", "<\\/")
    script = json.dumps(notebook._SCRIPT.read_text("utf-8"))
    path = tmp_path / "cell.html"
    path.write_text(STUB.format(policy=policy, values=told, script=script), "utf-8")
    browser.open(path)
    browser.wait("window.model?.get('twin')")  # the page's own, so the page is ready
    assert browser.evaluate("model.get('prompt')") == "for set by python"
    browser.evaluate(f"model.set('node', {json.dumps(node.key)})")
    browser.wait("window.saved > 1")
    change = {"kind": "off", "node": list(other), "where": "both", "at": None}
    browser.evaluate(f"model.set('changes', {json.dumps([change])})")
    browser.look_into_frame()
    browser.wait(f"document.querySelector('#changes')?.textContent.includes('{other.channel} switched off')")
    browser.wait("document.querySelector('main').getAttribute('aria-busy') === 'false'")
    assert browser.evaluate("document.querySelector('#prompt').value") == "for set by python"
    assert browser.evaluate("document.querySelector('.node.chosen').dataset.node") == node.key
    assert browser.evaluate("document.querySelectorAll('.node.changed').length") == 1
    assert browser.evaluate("document.querySelector('#difference').textContent")
    browser.evaluate("document.querySelector('#undo').click()")
    typed = "const p = document.querySelector('#prompt'); p.value = 'typed'; p.dispatchEvent(new Event('input'))"
    browser.evaluate(f"(() => {{ {typed} }})()")
    browser.look_into_frame(False)
    browser.wait("model.get('prompt') === 'typed'")
    assert browser.evaluate("model.get('changes')") == []
    browser.screenshot(tmp_path / "cell.png")
    refused = browser.evaluate("problems")
    browser.evaluate("end()")  # what a notebook calls when the cell goes
    before = browser.evaluate("window.saved")
    browser.evaluate("model.set('prompt', 'unheard')")
    assert browser.evaluate("window.saved") == before
    assert (policy == STRICT) == bool(refused or browser.console), browser.console
    browser.console.clear()
