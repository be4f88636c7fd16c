"""How a circuit does on the template families of its task, and what the minimal circuit inside it lacks."""

from sparse_gpt.drawing.text import escape, number, table
from sparse_gpt.records import Circuit
from sparse_gpt.report.sections import percent

ROLES = {"searched": "searched on", "left aside": "left aside", "novel": "seen by no search", "wild": "natural text"}


def family_table(circuit: Circuit) -> str:
    """Held-out losses of every template family; with a minimal circuit also its own. Nothing in older files."""
    if not circuit.families:
        return ""
    inner = {each.family: each for each in circuit.minimal.families} if circuit.minimal else {}
    head = ("family", "", "task loss", *(("minimal circuit",) if inner else ()), "full model", "accuracy", "agrees")
    rows = []
    for each in circuit.families:
        own = [number(inner[each.family].task_loss) if each.family in inner else "–"] if inner else []
        losses = [number(each.task_loss), *own, number(each.full_model_task_loss)]
        shares = [percent(each.accuracy), percent(each.agreement)]
        rows.append([escape(each.family), ROLES[each.role], *losses, *shares])
    return table(head, rows, "Template families, on held-out words; the calibration is the same for all")


def minimal_note(circuit: Circuit) -> str:
    """One sentence about the circuit inside; nothing where there is none."""
    minimal = circuit.minimal
    if minimal is None:
        return ""
    own = ", ".join(each.family for each in minimal.families if each.role == "searched")
    loss, nodes, edges = number(minimal.metrics.task_loss), len(minimal.nodes), len(minimal.edges)
    return (
        f'<p class="note">Nodes in bold are the minimal circuit: {nodes} nodes and {edges} edges are enough '
        f"for family {escape(own)} (task loss {loss} there). The other {len(circuit.nodes) - nodes} nodes and "
        f"{len(circuit.edges) - edges} edges are what the other families need.</p>"
    )
