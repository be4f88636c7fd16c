"""Mixtures of two bridged models as grids: how far each hybrid of bridge.json is above the dense model's loss.

Bridges cut both models into pieces. A path has one letter per piece, "d" or "s" for the model that runs it.
"""

import dataclasses
import itertools
from collections.abc import Sequence

from sparse_gpt.records import Bridge
from sparse_gpt.records.bridge import BridgedBoundary


@dataclasses.dataclass(frozen=True)
class Grid:
    """One heat map. `above` holds nats above the dense model's loss, None where there is no such hybrid, or it is not
    finite."""

    title: str
    note: str
    rows: list[str]
    columns: list[str]
    row_title: str
    column_title: str
    above: list[list[float | None]]
    paths: list[list[str]]


def mixture_grids(bridge: Bridge) -> list[Grid]:
    """Hybrids with one or two switches, and every mixture where all are known; [] without mixtures."""
    above = {
        entry.path: None if entry.loss is None else entry.loss - bridge.dense_loss for entry in bridge.mixtures.paths
    }
    if not above:
        return []
    grids = [_blocks(above, _pieces(bridge.bridges))]
    return [*grids, _whole(above)] if bridge.mixtures.complete else grids


def _pieces(bridges: Sequence[BridgedBoundary]) -> list[str]:
    """Names of the pieces: sublayers of the sparse model, where every boundary is bridged."""
    names = ["embedding" if bridges[0].sparse == 0 else f"0 to {bridges[0].sparse}"]
    for start, stop in itertools.pairwise(bridges):
        layer, kind = divmod(start.sparse, 2)
        single = stop.sparse == start.sparse + 1
        names.append(f"{('attention', 'MLP')[kind]} {layer}" if single else f"{start.sparse} to {stop.sparse}")
    return [*names, "unembedding"]


def _blocks(above: dict[str, float | None], pieces: list[str]) -> Grid:
    """Right of the diagonal the sparse model runs a block of pieces within the dense one, left of it the other way."""
    count = len(pieces)
    values: list[list[float | None]] = [[None] * (count + 1) for _ in range(count + 1)]
    paths = [[""] * (count + 1) for _ in range(count + 1)]
    for start in range(count):
        for stop in range(start + 1, count + 1):
            for (outer, inner), (row, column) in (("ds", (start, stop)), ("sd", (stop, start))):
                path = outer * start + inner * (stop - start) + outer * (count - stop)
                values[row][column], paths[row][column] = above.get(path), path
    note = (
        "Each cell is a hybrid. Above the diagonal the sparse model runs what is between the boundaries of its row "
        "and its column, and the dense model the rest; below it the dense model runs what is between. Nats above the "
        "dense model’s loss."
    )
    axis = [*pieces, "end"]
    title = "Hybrids with one or two switches"
    return Grid(title, note, axis, axis, "boundary before", "boundary before", values, paths)


def _whole(above: dict[str, float | None]) -> Grid:
    """Every path: its first half is the row, its second half the column."""
    half = len(next(iter(above))) // 2
    rows, columns = (sorted({path[part] for path in above}) for part in (slice(half), slice(half, None)))
    paths = [[row + column for column in columns] for row in rows]
    values = [[above.get(path) for path in line] for line in paths]
    note = f"All {len(above)} paths, a letter per piece: d for the dense, s for the sparse model. Nats above dense."
    return Grid("All mixtures", note, rows, columns, "first half of the path", "second half", values, paths)
