"""A circuit that was found, and its report card, as a terminal shows them."""

from collections import Counter
from collections.abc import Iterator, Sequence

from sparse_gpt.circuits.pipeline import FoundCircuit
from sparse_gpt.circuits.storage import searched_with
from sparse_gpt.records import Card, FamilyLosses, Formation, Search
from sparse_gpt.visible import columns


def describe(found: FoundCircuit) -> str:
    """Sizes, losses and what is wrong with the search; with a report card also that."""
    task = found.circuit.task
    problems = (f"{task}: {line}" for line in (*_misses(found), *search_problems(found.search)))
    judged = [] if found.card is None else describe_card(found.card)
    return "\n".join([*problems, *_numbers(found), *_families(found.circuit.families), *_minimal(found), *judged])


def _misses(found: FoundCircuit) -> Iterator[str]:
    """That the target was not reached, or nothing was refined, and why."""
    settings, nodes = searched_with(found.search), len(found.circuit.nodes)
    if not found.reached:
        what = "task loss" if settings.objective == "task" else "divergence from the model"
        yield f"no circuit reached {what} {found.circuit.target_loss:g}; this is the best found"
    elif len(found.search.stages) == 1:
        goal = settings.selection_margin * settings.target_loss
        why = f"nothing reached {goal:g} on the samples it was chosen on"
        if nodes > settings.refine_most:
            why = f"it has more than --config.prune.refine_most={settings.refine_most} nodes"
        yield f"not refined, for {why}"


def search_problems(search: Search) -> list[str]:
    """A line for everything about the searches that a reader must know before he believes in the circuit."""
    trials, origin = search.trials, search.refined_from
    closed = sum(not trial.open_nodes for trial in trials)
    above = sum(not trial.feasible and bool(trial.open_nodes) for trial in trials)
    lines = []
    if closed:
        lines.append(f"{closed} of {len(trials)} searches closed every node; lower --config.prune.k_coefs")
    if above:
        lines.append(f"{above} of {len(trials)} searches never were at the target; the model may hardly do the task")
    if search.fresh and not search.fresh[-1].accepted:
        last = search.fresh[-1]
        then = (
            "no nodes that could come back help" if last.given_back is None else "some came back, and no check followed"
        )
        lines.append(f"fresh samples refused the circuit ({last.task_loss:.3g} nats on them); {then}")
    if not any(trial.reached for trial in trials) and not origin.startswith("trial"):
        lines.append(f"no search's ranking reached the target; the circuit comes from {origin}, which nobody searched")
    return lines


def _numbers(found: FoundCircuit) -> Iterator[str]:
    circuit, m = found.circuit, found.circuit.metrics
    yield (
        f"{circuit.task}: {m['nodes']} nodes, {m['edges']} edges ({m['embedding_edges']} embedding, "
        f"{m['unembedding_edges']} unembedding), found in {found.search.seconds:.0f} s"
    )
    yield (
        f"  held-out task loss {m['task_loss']:.3f} (uncalibrated {m['task_loss_uncalibrated']:.3f}, "
        f"logits scaled by {circuit.scale:.3g}, full model {m['full_model_task_loss']:.3f}), "
        f"accuracy {m['accuracy']:.3f}, agreement with the full model {m['agreement']:.3f}"
    )
    for name, loss in found.search.allowed.items():
        yield f"  {name}: up to {loss:.3g} nats were allowed on selection samples, for the model's own loss there"
    back = [check for check in found.search.fresh if check.given_back is not None]
    if back:
        nodes = ", then ".join(str(check.given_back) for check in back)
        yield f"  given back after fresh samples refused what was minimized: {nodes} nodes"
    for each in circuit.tasks:
        yield f"  {each.task}: held-out task loss {each.task_loss:.3f}"
    if "shifted_task_loss" in m:
        yield (
            f"  other templates: task loss {m['shifted_task_loss']:.3f} (full model "
            f"{m['shifted_full_model_task_loss']:.3f}), agreement {m['shifted_agreement']:.3f}"
        )
    yield (
        f"  circuit ablated {m['ablated_task_loss']:.3f}, random circuits of its size "
        f"{m['random_circuit_task_loss']:.3f} (chance 0.693)"
    )


def _families(families: Sequence[FamilyLosses]) -> list[str]:
    """A line per template family."""
    head = ("family", "", "task loss", "full model", "accuracy", "agreement")
    rows = []
    for each in families:
        shares = (each.task_loss, each.full_model_task_loss, each.accuracy, each.agreement)
        rows.append((each.family, each.role, *("–" if value is None else f"{value:.3f}" for value in shares)))
    return columns([head, *rows]) if rows else []


def _minimal(found: FoundCircuit) -> Iterator[str]:
    if found.circuit.minimal is not None:
        m = found.circuit.minimal.metrics
        yield (
            f"  minimal circuit inside, for one family: {m['nodes']} nodes, {m['edges']} edges, held-out task loss "
            f"{m['task_loss']:.3f}"
        )


def describe_card(card: Card) -> list[str]:
    """How many rows pass, the names of those that do not (of rows asked of several sets of samples, on how many), and a
    line per row."""
    asked = Counter(row.name for row in card.rows if row.verdict != "not applicable")
    failed = Counter(row.name for row in card.failed())
    names = (f"{name} ({count} of {asked[name]})" if asked[name] > 1 else name for name, count in failed.items())
    head = f"  {asked.total() - failed.total()} of {asked.total()} rows of its card pass"
    rows = [("row", "samples", "value", "95 % interval", "clusters", "threshold", "verdict")]
    for row in card.rows:
        value = "" if row.value is None else f"{row.value:.3f}"
        interval = "" if row.interval is None else f"{row.interval[0]:.3f} to {row.interval[1]:.3f}"
        limit = f"{'<=' if row.sense == 'at most' else '>='} {row.threshold:.3g}"
        verdict = f"{row.verdict} ({row.note})" if row.note else row.verdict
        rows.append((row.name, row.samples, value, interval, str(row.clusters or ""), limit, verdict))
    return [head + (f"; fail: {', '.join(names)}" if failed else ""), *columns(rows)]


def describe_formation(found: Formation) -> list[str]:
    """A line per checkpoint; how many nodes were in every circuit from when on."""
    rows = [
        ("step", "tokens", "model", "circuit", "nodes", "edges", "overlap: nodes", "edges", "final circuit", "from")
    ]
    for each in found.checkpoints:
        sizes = ("", "", "", "", "", "" if each.solved else "not solved")
        circuit = each.circuit
        if circuit is not None:
            overlaps = f"{circuit.node_overlap:.2f}", f"{circuit.edge_overlap:.2f}"
            sizes = (
                _loss(circuit.task_loss),
                str(len(circuit.nodes)),
                str(len(circuit.edges)),
                *overlaps,
                circuit.start,
            )
        elif each.solved:
            sizes = (*sizes[:-1], "none found")
        model, final = _loss(each.model_task_loss), _loss(each.final_circuit_task_loss)
        rows.append((str(each.step), f"{each.tokens:,}", model, *sizes[:-1], final, sizes[-1]))
    appear = Counter(node.from_step for node in found.nodes)
    steps = ", ".join(f"{count} from step {step}" for step, count in sorted(appear.items()))
    return [*columns(rows), f"  nodes of the final circuit that stay: {steps}"]


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
