"""The templates of the report, and what they may call."""

import functools
from collections.abc import Iterable
from pathlib import Path

import jinja2

from sparse_gpt.drawing.templates import environment
from sparse_gpt.drawing.text import compact, number, percent, plain, script_json, short_name, visible_token, weight
from sparse_gpt.records.base import CHANCE
from sparse_gpt.report.chart_svg import chart_svg
from sparse_gpt.report.figures import plotted
from sparse_gpt.report.verdicts import count, samples, sentence

TEMPLATES = Path(__file__).parent / "templates"


def fill(template: str, **values: object) -> str:
    """HTML of templates/TEMPLATE, see `drawing.templates`."""
    return _environment().get_template(template).render(values)


def mean(values: Iterable[float]) -> float | None:
    """None of no values."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


def minus(value: float | None, subtracted: float) -> float | None:
    """None of None."""
    return None if value is None else value - subtracted


@functools.cache
def _environment() -> jinja2.Environment:
    found = environment(TEMPLATES)
    found.globals["CHANCE"] = CHANCE
    filters = (chart_svg, compact, count, mean, minus, number, percent, plain, samples, script_json, sentence, weight)
    found.filters.update({each.__name__: each for each in filters})
    found.filters |= {"plotted": plotted, "short": short_name, "token": visible_token}
    return found
