"""Templates of pages, in one manner for all rooms that write some."""

from pathlib import Path

import jinja2


def environment(*folders: Path) -> jinja2.Environment:
    """The templates of a folder, or of several. They escape all that they are given; what is HTML already is marked
    `safe` in them. A name that one uses and is not given raises jinja2.UndefinedError."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
