"""ES modules of this folder as one script that can stand in a page.

A page that opens from a file cannot import files. So modules are put one after the other, each after those that it
imports, and their `import` and `export` words are taken away. That asks two things of them, which are checked: they
import by `import { a, b } from "./file.js"`, without renaming, and no two of them have a name of their own in common.
"""

import re
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
_IMPORT = re.compile(r'^import \{\s*\w+(?:,\s*\w+)*,?\s*\} from "(\.[^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|class|const|let)", re.MULTILINE)
_COMMENT = re.compile(r"^\s*//.*\n", re.MULTILINE)  # lines that are nothing else; the sources keep them
_NAME = re.compile(r"^(?:async )?(?:function\*?|class|const|let) (\w+)", re.MULTILINE)
_WRONG = re.compile(r"^(?:import|export)\b.*|.*(?:</script|<!--|import\().*", re.MULTILINE | re.IGNORECASE)


def join_modules(*names: str) -> str:
    """The script of the modules NAME (paths within this folder) and all that they import.

    Raises:
      ValueError: a module cannot be joined; it names the module and the line.
    """
    found: dict[Path, str] = {}
    for name in names:
        _add(FOLDER / name, found, ())
    owners: dict[str, Path] = {}
    for path, source in found.items():
        for own in _NAME.findall(source):
            if own in owners:
                raise ValueError(f"{path.name}: {own} is a name in {owners[own].name} too")
            owners[own] = path
    return '"use strict";\n' + "\n".join(found.values())


def _add(path: Path, found: dict[Path, str], within: Sequence[Path]) -> None:
    """Enters a module into `found` after those that it imports."""
    path = path.resolve()
    if path in found:
        return
    if path in within:
        raise ValueError(f"{path.name}: modules import each other in a circle")
    text = path.read_text(encoding="utf-8")
    for target in _IMPORT.findall(text):
        _add(path.parent / target, found, (*within, path))
    source = _COMMENT.sub("", _EXPORT.sub("", _IMPORT.sub("", text)))
    if wrong := _WRONG.search(source):
        raise ValueError(f"{path.name}: cannot be joined with others: {wrong[0].strip()}")
    found[path] = source
