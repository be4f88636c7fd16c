"""Documents are short where they promise to be, and name only what is there: links, files, functions, commands."""

import re
import textwrap
from pathlib import Path

import pytest

from sparse_gpt import config as configs
from sparse_gpt import tasks
from sparse_gpt.experiments.registry import EXPERIMENTS
from sparse_gpt.presets import PRESETS
from sparse_gpt.tasks.rows import read_rows

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
TOP = "sparse_gpt|tasks|launch|tests|docs"

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchor(heading: str) -> str:
    """What a heading is called in a link, as GitHub and site generators make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def dead_links(page: Path, text: str) -> list[str]:
    """Relative links of a page that lead nowhere, or to a heading that is not there."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, part = link.partition("#")
        target = page.parent / name if name else page
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if part and target.is_file() else []
        if not target.exists() or (part and part not in map(anchor, headings)):
            dead.append(link)
    return dead


def missing_files(text: str) -> list[str]:
    """Files and folders that a text names by their path from the root of the checkout, and any `x.py`."""
    paths = re.findall(rf"(?<![\w/.-])((?:{TOP})/[\w./-]*\w)", text)
    missing = [path for path in paths if not (ROOT / path).exists()]
    for path in re.findall(r"`([\w./-]+\.py)`", text):
        there = (ROOT / path).exists() if "/" in path else any(ROOT.glob(f"[!.]*/**/{path}"))
        missing += [] if there else [path]
    return missing


def unknown_commands(text: str) -> list[str]:
    """Modules, fields, presets and experiments in a text that this revision does not have."""
    unknown = []
    for module in re.findall(r"python\S* -m ((?:sparse_gpt|launch|tests)\.[\w.]*\w)", text):
        path = ROOT / module.replace(".", "/")
        if not (module == "launch.NAME" or path.with_suffix(".py").exists() or path.is_dir()):
            unknown.append(module)
    fields = {f"{group}.{name}" for group, held in configs.to_dict(configs.Config()).items() for name in held}
    unknown += [name for name in re.findall(r"--config\.(\w+\.\w+)", text) if name not in {*fields, "group.field"}]
    unknown += [name for name in re.findall(r"--preset=(\w+)", text) if name not in {*PRESETS, "P"}]
    return unknown + [name for name in re.findall(r"--experiment=([\w-]+)", text) if name not in {*EXPERIMENTS, "NAME"}]


def undefined_names(line: str) -> list[str]:
    """Names that a step of a call path gives after its file, "1. `path.py` `name` `name`: ...", and the file lacks."""
    found = re.match(r"\d+\. `(\S+\.(?:py|js))`((?: `\w+`)*)", line)
    if found is None:
        return [line]
    source = (ROOT / found[1]).read_text()
    names = re.findall(r"`(\w+)`", found[2])
    return [
        name
        for name in names
        if not re.search(
            rf"^ *(?:export )?(?:async )?(?:def|class|function) {name}\b|^{name}\b.*=", source, re.MULTILINE
        )
    ]


def test_readme_and_notes_are_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 6000
    assert len((ROOT / "BUILD_NOTES.md").read_text().splitlines()) <= 150


def test_the_readme_has_exactly_two_commands_that_set_up() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("bash ")]
    assert commands == ["bash launch/quickstart.sh", "bash tests/run.sh"]


@each_page
def test_links_and_files_are_there(page: Path) -> None:
    text = page.read_text()
    assert dead_links(page, text) + missing_files(text) == []


@each_page
def test_commands_are_those_of_this_revision(page: Path) -> None:
    assert unknown_commands(page.read_text()) == []


def test_call_paths_name_what_their_files_define() -> None:
    paths = ARCHITECTURE.read_text().split("## Six call paths")[1].split("\n## ")[0]
    assert paths.count("\n### ") == 6
    steps = [line for line in paths.splitlines() if re.match(r"\d+\.", line)]
    assert len(steps) >= 6 * 5
    assert {line: undefined for line in steps if (undefined := undefined_names(line))} == {}


def answers(text: str) -> list[tuple[str, str]]:
    """(name, file) wherever a text says `name` or NAME in, of or before a comma and a file."""
    file = rf"`((?:{TOP})/[\w./]+\.py)`"
    return [(name.strip("`"), path) for name, path in re.findall(rf"(`\w+`|\b[A-Z]\w+)(?:,| in| of) {file}", text)]


def defines(path: str, name: str) -> bool:
    """Whether a file defines a name: a function, a class, a field or a constant."""
    return bool(re.search(rf"^ *(?:(?:def|class) {name}\b|{name}\b.*=)", (ROOT / path).read_text(), re.MULTILINE))


# What a newcomer asks, "where would I add ...", and the file and name that the documents have to lead to.
QUESTIONS = {
    "a node site": ("sparse_gpt/config/groups.py", "NODE_SITES"),
    "a baseline": ("sparse_gpt/circuits/evidence/baselines.py", "importances"),
    "a row of the report card": ("sparse_gpt/circuits/evidence/card/card.py", "ROWS"),
    "a template family of a task": ("tasks/task.py", "Task"),
    "an optimizer recipe": ("sparse_gpt/training/optimizer.py", "RECIPES"),
    "a metric of a circuit": ("sparse_gpt/records/circuit.py", "CircuitMetrics"),
    "a preset": ("sparse_gpt/presets.py", "PRESETS"),
    "what happens to dead neurons": ("sparse_gpt/training/revival.py", "begin_again"),
    "how much is done by one call of a program": ("sparse_gpt/circuits/run/masks.py", "PER_CALL"),
    "another checkpoint format": ("sparse_gpt/interop/workdirs.py", "import_openai"),
    "a circuit export": ("sparse_gpt/exports/files.py", "export_circuit"),
    "a change of a mask search's step": ("sparse_gpt/circuits/search/path_search.py", "update"),
    "a kind of ablation value": ("sparse_gpt/circuits/problem.py", "_ablation_values"),
    "a reason to leave a document out of a corpus": ("sparse_gpt/data/cleaning.py", "clean"),
    "an error message": ("launch/cli.py", "run"),
    "which axis of a tensor is sharded": ("sparse_gpt/training/sharding.py", "RULES"),
    "an edge, or when one can be removed": ("sparse_gpt/circuits/run/edge_ablation.py", "removable"),
    "a schedule of training": ("sparse_gpt/training/schedules.py", "annealing"),
    "a field of a JSON file": ("sparse_gpt/circuits/evidence/metrics.py", "describe"),
    "a stage of the pipeline": ("sparse_gpt/circuits/pipeline.py", "find_circuit"),
    "a gate kind": ("sparse_gpt/circuits/search/path_search.py", "drawn_gates"),
    "an activation function": ("sparse_gpt/model/activations.py", "ACTIVATIONS"),
    "own pairs": ("tasks/own.py", "load"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_where_would_i_add(question: str) -> None:
    path, name = QUESTIONS[question]
    rows = ARCHITECTURE.read_text().split("## Where would I add")[1].splitlines()
    (row,) = [row for row in rows if row.startswith(f"| {question}")]
    assert f"`{path}`" in row
    assert name in row
    assert defines(path, name)


def test_what_is_added_where_is_defined_there() -> None:
    table = ARCHITECTURE.read_text().split("## Where would I add")[1]
    found = [*answers(table), *answers((ROOT / "CONTRIBUTING.md").read_text())]
    assert len(found) > 20
    assert [(name, path) for name, path in found if not defines(path, name)] == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_decisions_have_their_three_parts(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {int(page.stem[:4])}. ")
    assert re.findall(r"^\*\*(Context|Choice|Consequence)\.\*\* \S", text, re.MULTILINE) == [
        "Context",
        "Choice",
        "Consequence",
    ]


def test_decisions_are_numbered_and_listed() -> None:
    assert [int(page.stem[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    listed = re.findall(r"^- \[(\d{4}) (.*)\]\((.*)\)$", (DECISIONS[0].parent / "README.md").read_text(), re.MULTILINE)
    headings = [page.read_text().splitlines()[0].partition(". ")[2] for page in DECISIONS]
    assert [(*row,) for row in listed] == [
        (page.stem[:4], heading, page.name) for page, heading in zip(DECISIONS, headings, strict=True)
    ]


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        waiting += [
            (page.parent / link.split("#")[0]).resolve()
            for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
            if "://" not in link and (page.parent / link.split("#")[0]).is_file()
        ]
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in seen] == []


def test_the_guide_for_a_task_is_the_one_that_is_executed() -> None:
    """tests/test_tasks.py runs the lines in the docstring."""
    guide = (ROOT / "docs" / "guides" / "tasks.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert textwrap.indent(lines, "    ", lambda line: line != "\n") in (tasks.__doc__ or "")


def test_pairs_of_your_own_are_the_same_in_both_formats(tmp_path: Path) -> None:
    guide, found = (ROOT / "docs" / "guides" / "tasks.md").read_text(), []
    for word, name in (("json", "pairs.jsonl"), ("csv", "pairs.csv")):
        (example,) = re.findall(rf"```{word}\n(.*?)```", guide, re.DOTALL)
        (tmp_path / name).write_text(example)
        rows, _ = read_rows(str(tmp_path / name))
        found.append([(row.prompt, row.answer, row.foil) for row in rows])
    assert found[0] == found[1] == [("for moss", " in", ":\n"), ("while moss", ":\n", " in")]


def test_the_checks_can_fail() -> None:
    page = ROOT / "README.md"
    assert dead_links(page, "[a](docs/nowhere.md) [b](docs/index.md#nowhere) [c](docs/index.md#sparse_gpt)") == [
        "docs/nowhere.md",
        "docs/index.md#nowhere",
    ]
    assert missing_files("see sparse_gpt/nowhere.py, `nowhere.py`, `taps.py` and sparse_gpt/model/taps.py") == [
        "sparse_gpt/nowhere.py",
        "nowhere.py",
    ]
    assert unknown_commands("python -m launch.fly --preset=huge --config.train.stepz=1 --experiment=none") == [
        "launch.fly",
        "train.stepz",
        "huge",
        "none",
    ]
    assert undefined_names("1. `sparse_gpt/model/taps.py` `gate` `nowhere`: x") == ["nowhere"]
    assert undefined_names("2. without a file") == ["2. without a file"]
    assert answers("NODE_SITES in `sparse_gpt/presets.py`") == [("NODE_SITES", "sparse_gpt/presets.py")]
    assert not defines("sparse_gpt/presets.py", "NODE_SITES")
