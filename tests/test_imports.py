"""Imports point one way, flags stay in launch, packages are pinned, and no file knows the machine it was written on."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
OURS = ("sparse_gpt", "tasks", "launch", "tests")

# What each room may import besides itself. A room is a folder or module of sparse_gpt, in sparse_gpt/circuits one of
# those. Folders sparse_gpt/tasks and sparse_gpt/launch are links to the ones beside it.
FILES = {"sparse_gpt.errors", "sparse_gpt.io"}  # standard library only, as the next
PROCESS = {"sparse_gpt.folders", "sparse_gpt.interruption", "sparse_gpt.locks"}
RECORDS = {*FILES, "sparse_gpt.config", "sparse_gpt.records"}
BASE = {"sparse_gpt.arrays", "sparse_gpt.visible", "sparse_gpt.progress", *RECORDS, *PROCESS}
DRAWING = {"sparse_gpt.drawing"}
MODEL = {*BASE, "sparse_gpt.parameters", "sparse_gpt.sparsity", "sparse_gpt.model"}
TRAINING = {*MODEL, "sparse_gpt.data", "sparse_gpt.training"}
GRAPH = {*MODEL, *DRAWING, *(f"sparse_gpt.circuits.{name}" for name in ("circuit", "nodes", "liveness", "model_graph"))}
PROBLEM = {*GRAPH, *(f"sparse_gpt.circuits.{name}" for name in ("run", "problem", "stages"))}
SEARCH = {*PROBLEM, "sparse_gpt.circuits.solved", "sparse_gpt.circuits.search"}
PIPELINE = {*SEARCH, "sparse_gpt.circuits.evidence", "sparse_gpt.circuits.pipeline"}
CIRCUITS = {*PIPELINE, *(f"sparse_gpt.circuits{name}" for name in ("", ".storage", ".summary"))}
ROOMS: dict[str, set[str]] = {
    "sparse_gpt.errors": set(),
    "sparse_gpt.visible": set(),
    "sparse_gpt.progress": set(),
    "sparse_gpt.machine": set(),
    "sparse_gpt.compilation_cache": set(),
    "sparse_gpt.paths": {"sparse_gpt.errors"},
    "sparse_gpt.interruption": set(),
    "sparse_gpt.io": {"sparse_gpt.errors"},
    "sparse_gpt.arrays": {"sparse_gpt.errors", "sparse_gpt.io"},
    "sparse_gpt.folders": {"sparse_gpt.errors", "sparse_gpt.io"},
    "sparse_gpt.locks": {"sparse_gpt.errors", "sparse_gpt.folders"},
    "sparse_gpt.surroundings": {"sparse_gpt.machine"},
    "sparse_gpt.config": FILES,
    "sparse_gpt.records": RECORDS - {"sparse_gpt.records"},
    "sparse_gpt.presets": BASE,
    "sparse_gpt.estimate": {*BASE, "sparse_gpt.machine"},
    "sparse_gpt.tasks": set(),
    "sparse_gpt.parameters": BASE,
    "sparse_gpt.sparsity": {*BASE, "sparse_gpt.parameters"},
    "sparse_gpt.model": MODEL,
    "sparse_gpt.data": BASE,
    "sparse_gpt.training": {*TRAINING, "sparse_gpt.estimate", "sparse_gpt.machine"},
    "sparse_gpt.circuits.nodes": MODEL,
    "sparse_gpt.circuits.liveness": {*MODEL, "sparse_gpt.circuits.nodes"},
    "sparse_gpt.circuits.circuit": {*MODEL, *DRAWING, "sparse_gpt.circuits.nodes"},
    "sparse_gpt.circuits.model_graph": GRAPH,
    "sparse_gpt.circuits.stages": {*BASE, "sparse_gpt.compilation_cache"},
    "sparse_gpt.circuits.run": GRAPH,
    "sparse_gpt.circuits.problem": {*PROBLEM, "sparse_gpt.estimate"},
    "sparse_gpt.circuits.solved": PROBLEM,
    "sparse_gpt.circuits.search": SEARCH,
    "sparse_gpt.circuits.evidence": SEARCH,
    "sparse_gpt.circuits.pipeline": PIPELINE,
    "sparse_gpt.circuits.storage": PIPELINE,
    "sparse_gpt.circuits.summary": {*PIPELINE, "sparse_gpt.circuits.storage"},
    "sparse_gpt.circuits": PIPELINE,
    "sparse_gpt.bridges": {*TRAINING, "sparse_gpt.stored"},
    # Reads and writes the tokenizers and workdirs that data and training make.
    "sparse_gpt.interop": TRAINING,
    # Whole workdirs in one file.
    "sparse_gpt.stored": {*TRAINING, "sparse_gpt.interop"},
    # One object that opens a finished workdir, for notebooks and launch.
    "sparse_gpt.workdir": {*TRAINING, *CIRCUITS},
    # Where tasks and models meet.
    "sparse_gpt.evaluation": {*TRAINING, *CIRCUITS, "sparse_gpt.bridges", "sparse_gpt.tasks", "sparse_gpt.workdir"},
    # These read files only.
    "sparse_gpt.drawing": BASE,
    "sparse_gpt.report": {*BASE, "sparse_gpt.drawing"},
    "sparse_gpt.exports": {*BASE, "sparse_gpt.drawing"},
}
# A finished workdir as one file that runs it.
ROOMS["sparse_gpt.page"] = {*TRAINING, *CIRCUITS, "sparse_gpt.workdir", "sparse_gpt.tasks", "sparse_gpt.report"}
ROOMS["sparse_gpt.api"] = set(ROOMS) - {"sparse_gpt.report", "sparse_gpt.exports"}
ROOMS["sparse_gpt"] = set(ROOMS)  # the package's own __init__: the front door
ROOMS["sparse_gpt.costs"] = {
    *TRAINING,
    *CIRCUITS,
    "sparse_gpt.bridges",
    "sparse_gpt.presets",
    "sparse_gpt.surroundings",
}
ROOMS["sparse_gpt.experiments"] = set(ROOMS) - {"sparse_gpt", "sparse_gpt.api", "sparse_gpt.page"}
# Outer packages, for rooms that are to stay free of most.
ONLY_OUTER = {"sparse_gpt.tasks": {"numpy"}, "sparse_gpt.arrays": {"numpy"}}
SLOW = {"jax", "flax", "optax", "orbax"}  # to import: not before flags are checked
NEVER_OUTER = {
    **dict.fromkeys(
        (f"sparse_gpt.{name}" for name in ("records", "drawing", "report", "exports", "config", "presets")), SLOW
    ),
}
FLAGS = ("absl.flags", "absl.app", "ml_collections.config_flags", "argparse")
# Imported inside the function that needs them, where their absence gives one clear line, or for types alone.
OPTIONAL = {"anywidget", "datasets", "pyarrow", "torch", "traitlets", "zstandard", "_typeshed"}


class Import(NamedTuple):
    """One imported module, as dotted name, and where."""

    name: str
    line: int
    inside_function: bool  # or for types alone, so that it may be absent


def module_name(path: Path) -> str:
    """Dotted name of a file given relative to the repository."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room that a module of ours lives in: "sparse_gpt.model.taps" -> "sparse_gpt.model"."""
    parts = module.split(".")
    if parts[0] in ("tasks", "launch"):
        parts.insert(0, "sparse_gpt")
    inner = ".".join(parts[:3])
    return inner if inner.startswith("sparse_gpt.circuits.") and inner in ROOMS else ".".join(parts[:2])


def imports(source: str, path: Path) -> Iterator[Import]:
    """Every import of a file; `from a import b` counts as a.b, since b may be a module."""
    tree = ast.parse(source)
    late = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _for_types(node)
    ]
    inside = {id(node) for each in late for node in ast.walk(each)}
    package = list(path.parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1] if node.level else []).strip(".")
            prefix = ".".join(filter(None, (base, node.module)))
            names = [f"{prefix}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (Import(name, node.lineno, id(node) in inside) for name in names)


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def violations(source: str, path: Path) -> list[str]:
    """One line per import that breaks the rules of the house; `path` relative to the repository."""
    room = room_of(module_name(path))
    if room.startswith(("sparse_gpt.launch", "tests")):
        return []
    if room not in ROOMS:
        return [f"{path}: {room} is not in ROOMS; say there what it may import"]
    found = []
    for name, line, _ in imports(source, path):
        outer = name.split(".")[0]
        if outer in OURS:
            target = room_of(name)
            known = target in (*ROOMS, "sparse_gpt.launch") or not target.startswith("sparse_gpt")
            # A name that the package's own __init__ defines, such as sparse_gpt.__version__, is not a room.
            wrong = known and target != room and target not in ROOMS[room]
        elif name.startswith(FLAGS):
            wrong = True
        elif outer in sys.stdlib_module_names:
            wrong = False
        else:
            wrong = outer in NEVER_OUTER.get(room, ()) or outer not in ONLY_OUTER.get(room, {outer})
        if wrong:
            found.append(f"{path}:{line}: {room} must not import {name}")
    return found


def python_files() -> list[Path]:
    """Every Python file of the project, relative to the repository."""
    found = [path for top in OURS for path in sorted((REPOSITORY / top).rglob("*.py"))]
    assert len(found) > 10, "the walk must find the project"
    return [path.relative_to(REPOSITORY) for path in found]


@pytest.mark.slow
def test_imports_point_one_way() -> None:
    found = [line for path in python_files() for line in violations((REPOSITORY / path).read_text("utf-8"), path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("sparse_gpt/model/a.py", "from sparse_gpt.training import step"),
        ("sparse_gpt/model/a.py", "from sparse_gpt import training"),
        ("sparse_gpt/model/a.py", "from ..training import step"),
        ("sparse_gpt/model/a.py", "def f():\n    import sparse_gpt.circuits.search.mask_search"),
        ("sparse_gpt/sparsity/topk.py", "from sparse_gpt import model"),
        ("sparse_gpt/sparsity/topk.py", "from .. import model"),
        ("sparse_gpt/data/a.py", "from sparse_gpt.training import loop"),
        ("sparse_gpt/report/a.py", "import sparse_gpt.model"),
        ("sparse_gpt/report/a.py", "import jax.numpy as jnp"),
        ("sparse_gpt/circuits/a.py", "import tasks"),
        ("sparse_gpt/training/a.py", "from launch import cli"),
        ("sparse_gpt/training/a.py", "from sparse_gpt.launch import cli"),
        ("sparse_gpt/circuits/run/a.py", "from sparse_gpt.circuits.search import minimize"),
        ("sparse_gpt/circuits/search/a.py", "from sparse_gpt.circuits import evidence"),
        ("sparse_gpt/training/a.py", "from absl import flags"),
        ("sparse_gpt/attic/a.py", ""),
        ("tasks/a.py", "from sparse_gpt.errors import InputError"),
        ("tasks/a.py", "import jax"),
        ("tasks/a.py", "import tiktoken"),
    ],
)
def test_a_wrong_import_is_found(path: str, source: str) -> None:
    assert len(violations(source, Path(path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "sparse_gpt/model/a.py",
            "from sparse_gpt import parameters\nfrom .taps import gate\nfrom . import taps\nimport jax",
        ),
        ("sparse_gpt/training/a.py", "from sparse_gpt.data import Corpus\nfrom absl import logging\nimport os.path"),
        ("launch/a.py", "from sparse_gpt.report import page\nfrom absl import flags\nimport tasks"),
        ("tasks/a.py", "import numpy as np\nfrom tasks.task import Pair\nimport random"),
    ],
)
def test_a_right_import_passes(path: str, source: str) -> None:
    assert violations(source, Path(path)) == []


def test_the_rooms_have_an_order() -> None:
    done: set[str] = set()
    while len(done) < len(ROOMS):
        ready = {room for room, allowed in ROOMS.items() if allowed - {room} <= done} - done
        assert ready, f"these rooms import each other in a circle: {sorted(set(ROOMS) - done)}"
        done |= ready


def pinned(*files: str) -> set[str]:
    """Normalized names of the packages that requirements files pin."""
    lines = [line for file in files for line in (REPOSITORY / file).read_text("utf-8").splitlines()]
    return {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line and line[0] != "#"}


@pytest.mark.slow
def test_every_imported_package_is_pinned() -> None:
    distributions = packages_distributions()
    run, dev = pinned("requirements.txt"), pinned("requirements.txt", "requirements-dev.txt")
    missing = set()
    for path in python_files():
        if path.parts[1].endswith("_check"):  # has an environment and requirements of its own
            continue
        for name, line, inside_function in imports((REPOSITORY / path).read_text("utf-8"), path):
            outer = name.split(".")[0]
            if outer in sys.stdlib_module_names or outer in OURS or (outer in OPTIONAL and inside_function):
                continue
            providers = {provider.lower().replace("_", "-") for provider in distributions.get(outer, ())}
            if not providers & (dev if path.parts[0] == "tests" else run):
                missing.add(f"{path}:{line}: {outer} is in no requirements file")
    assert not missing, "\n".join(sorted(missing))


# Spelled so that this file does not match itself.
MACHINE = re.compile(
    r"(?<![\w.$}/])/(?:work|tmp|root|home)(?:/|\b)(?=[\w/\"'])"
    "|" + "|".join(re.escape(".".join(host)) for host in (("pypi", "org"), ("deb", "debian"), ("registry", "npmjs")))
)


def test_no_file_names_a_machine_or_a_registry() -> None:
    suffixes = {".py", ".sh", ".md", ".toml", ".txt", ".css", ".js", ".html", ""}
    found = []
    tops = [REPOSITORY / name for name in (*OURS, ".ci")]
    files = [path for path in REPOSITORY.iterdir() if path.is_file() and path.name != ".git"] + [
        path for top in tops for path in top.rglob("*")
    ]
    for path in files:
        if not path.is_file() or path.suffix not in suffixes or "__pycache__" in path.parts:
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if MACHINE.search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", ["work/x", "tmp/run", "root/.cache", "home/me"])
def test_a_machine_path_is_found(path: str) -> None:
    assert MACHINE.search(f"see /{path}")
    assert MACHINE.search(f'open("/{path}")')
    assert not MACHINE.search(f"some/{path} and ${{top}}/{path}")
