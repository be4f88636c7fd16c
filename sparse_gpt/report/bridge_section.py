"""The part of the report about a bridged pair of models: bridge by bridge, hybrids, steering, circuits' images."""

from sparse_gpt.drawing.text import percent
from sparse_gpt.records import Bridge, CircuitFiles, Steering, Transport, Workdir
from sparse_gpt.report.figures import LINES, Axis, Chart, Figure, Heat, Line
from sparse_gpt.report.mixture_grids import Grid, mixture_grids
from sparse_gpt.report.rendering import fill


def bridge_section(workdir: Workdir) -> str:
    """Everything that bridge.json says, and what launch.steer found for each circuit."""
    if workdir.bridge is None:
        return ""
    return fill(
        "bridge.html",
        bridge=workdir.bridge,
        others=of_other_weights(workdir, workdir.bridge),
        mixtures=mixture_charts(workdir.bridge),
        steered=[chart for files in workdir.circuits if (chart := steering_chart(files))],
        transported=[files.transport for files in workdir.circuits if files.transport],
        folder=workdir.folder.name,
    )


def of_other_weights(workdir: Workdir, bridge: Bridge) -> list[tuple[str, str, str, str, str]]:
    """(file, sparse or dense, its weights, the workdir's, way out) of what this section shows of other weights than the
    manifest names, or where that names none, bridge.json."""
    known = workdir.manifest
    models = (
        ("sparse", "params_sha256", known.params_sha256 or bridge.params_sha256),
        ("dense", "dense_params_sha256", known.dense_params_sha256 or bridge.dense_params_sha256),
    )
    shown: list[tuple[str, Bridge | Steering | Transport]] = [("", bridge)]
    for files in workdir.circuits:
        shown += [(files.folder.name, found) for found in (files.steering, files.transport) if found]
    return [
        (found.FILE.replace("TASK", folder), model, theirs, ours, found.REMEDY)
        for folder, found in shown
        for model, name, ours in models
        if (theirs := getattr(found, name)) and ours and theirs != ours
    ]


def mixture_charts(bridge: Bridge) -> list[Chart]:
    """Heat maps of the loss above the dense model's: hybrids with at most two switches, and all of them if known."""
    return [Chart(grid.title, grid.note, _heat(grid), wide=True) for grid in mixture_grids(bridge)]


def _heat(grid: Grid) -> Heat:
    unit = "nats above the dense model"
    return Heat(grid.columns, grid.rows, grid.above, grid.paths, grid.column_title, grid.row_title, unit)


def steering_chart(files: CircuitFiles) -> Chart | None:
    """The foil's share of both answers against strength: sparse model, dense model both ways, random directions."""
    steering = files.steering
    if steering is None:
        return None
    axes = Axis("strength"), Axis("foil's share of both answers", bounds=(-0.02, 1.02))
    figure = Figure(*axes)
    curves, strengths, stream = steering.curves, list(steering.strengths), steering.curves.stream
    for i, curve in enumerate((*curves.random, *curves.random_stream)):
        share = list(curve.share)
        figure.lines.append(Line("random directions", strengths, share, "var(--faint)", width=1, listed=i == 0))
    lines = (
        ("sparse model", curves.sparse),
        ("dense model, its stream", stream),
        ("dense model, one read", curves.dense),
    )
    for (name, curve), color in zip(lines, LINES, strict=False):
        figure.lines.append(Line(name, strengths, list(curve.share), color, mark="dot"))
    at = f"{steering.dense.layer}.{steering.dense.site}"
    both: list[float | None] = [*map(sum, zip(stream.answer, stream.foil, strict=True))] or [None]
    note = (
        f"Node {steering.node.node.key} of the sparse model, moved towards its value on the other prompt, over "
        f"{steering.pairs} held-out pairs; in the dense model its decoder row is added to what {at} reads, or to the "
        "stream before it, where "
        "later sublayers read it too. Random directions have the same norms. Of all tokens the two answers together "
        f"have {percent(both[0])} in the dense model as it is, {percent(both[1])} at the last strength in its stream."
    )
    return Chart(f"Steering: {steering.task}", note, figure)
