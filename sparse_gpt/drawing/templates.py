"""Templates of pages, in one manner for all rooms that write some."""

from pathlib import Path

import jinja2


def environment(folder: Path) -> jinja2.Environment:
    """The templates of a folder. They escape all that they are given; what is HTML already is marked `safe` in them. A
    name that one uses and is not given raises jinja2.UndefinedError."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
