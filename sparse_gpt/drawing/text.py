"""How numbers, nodes and tokens are written, and the escaping of what drawings and charts show of files."""

import html
import json
import math
from collections.abc import Mapping

from sparse_gpt.records import Node
from sparse_gpt.visible import visible


def escape(text: object) -> str:
    """`text` for SVG, in element content and in quoted attributes alike; the page's templates do it
    themselves. Lone surrogates become "?"."""
    return html.escape(str(text).encode("utf-8", "replace").decode(), quote=True)


def visible_token(token: str, limit: int = 0) -> str:
    """A token with white space and control characters made visible; shortened with "…" to `limit`, if given."""
    shown = visible(token)
    return shown[: limit - 1] + "…" if limit and len(shown) > limit else shown


def number(value: object, digits: int = 3) -> str:
    """A number to `digits` significant digits, or as many decimals if that is less, with a true minus sign.

    None, NaN and what is no number give "–".
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return "–"
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        shown = f"{int(value):,}"
    elif 0.01 <= abs(value) < 1e6:
        shown = f"{value:,.{min(digits, max(0, digits - 1 - math.floor(math.log10(abs(value)))))}f}"
    else:
        shown = f"{value:.{digits}g}"
    return shown.replace(",", "\u202f").replace("-", "−")


def percent(value: float | None) -> str:
    """0.987 as "98.7 %"."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f}\u202f%"


def plain(value: object) -> str:
    """Any plain value: numbers by `number`, booleans as yes and no, nothing as a dash, lists with commas."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else "–" if value is None else str(value)


def short_name(node: Node) -> str:
    """A name that fits a table: "L0 mlp_neuron 201"."""
    return f"L{node.layer} {node.site} {node.channel}"


def weight(value: float) -> str:
    """A weight or activation with its sign: two decimals, more where two would show nothing."""
    size = abs(value)
    shown = f"{value:+.2f}" if size >= 0.095 or value == 0 else f"{value:+.3f}" if size >= 5e-4 else f"{value:+.0e}"
    return shown.replace("-", "−")


def compact(value: object) -> str:
    """A large count in words a headline can hold: 4,096,000 is "4.1 M"."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return "–"
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.3g}\u202f{suffix}"
    return number(value)


def sparse_nonzeros(counts: Mapping[str, int | None] | int | None) -> int | None:
    """Nonzeros in all, from a count per tensor path: without the bigram table, which is dense and would hide the rest.
    A plain number stands as it is."""
    if counts is None or isinstance(counts, int):
        return counts
    return sum(count or 0 for path, count in counts.items() if not path.split("/")[-1].startswith("bigram"))


def script_json(value: object) -> str:
    """JSON that is safe inside a <script> element: no "<", no line separators, and null for NaN and infinities."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
