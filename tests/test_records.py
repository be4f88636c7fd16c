"""Records: old files keep loading and keep their bytes, mistakes are named, pages are up to date."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from sparse_gpt.errors import InputError
from sparse_gpt.records import (
    Bridge,
    Circuit,
    Evaluation,
    Manifest,
    MetricsRow,
    Record,
    Search,
    Settings,
    Traces,
    document,
)
from sparse_gpt.records.base import Part, converted
from tests import report_workdirs
from tests.json_readers import wrong_values

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDEN = REPOSITORY / "tests" / "golden" / "records"
"""Small files as the version before records wrote them. They are never made anew: they stand for what is out there."""


END = [0, "attn_v", 1]


def golden(name: str) -> str:
    (path,) = GOLDEN.glob(f"{name}.json*")
    return path.read_text("utf-8").splitlines()[0] if path.suffix == ".jsonl" else path.read_text("utf-8")


def same(record: type[Record], text: str) -> bool:
    """Whether a file is written as it was read."""
    found = record.parse(text, "file")
    if record is MetricsRow:
        return json.dumps(found.tree()) == text
    return json.dumps(found.tree(), indent=1) + "\n" == text


@pytest.mark.parametrize("name", document.PAGES)
def test_files_of_before_are_read_and_written_again_with_the_same_bytes(name: str) -> None:
    record, text = document.PAGES[name], golden(name)
    if name == "corpus":  # whose bytes are data/builder.py's own
        assert len(record.parse(text, "file").tree()["shards"]) == len(json.loads(text)["shards"]) > 0
    else:
        assert same(record, text)


@pytest.mark.parametrize("name", document.PAGES)
def test_what_a_newer_version_adds_is_passed_over(name: str) -> None:
    record, tree = document.PAGES[name], json.loads(golden(name))
    known = record.from_tree(tree)

    def widened(value: Any) -> Any:
        """With a field more in every object that has a form of its own."""
        if isinstance(value, list):
            return [widened(item) for item in value]
        if isinstance(value, dict) and not any("/" in key or "." in key for key in value):
            return {key: widened(item) if key not in OPEN else item for key, item in value.items()} | {"later": None}
        return value

    newer = record.from_tree(widened(tree))
    if "other" in record.__struct_fields__:
        assert newer.tree()["later"] is None, "kept"
    else:
        assert newer == known


OPEN = (
    "packages",
    "seeds",
    "imported",
    "nonzeros",
    "hyperparameters",
    "site_widths",
    "settings",
    "dropped",
    "splits",
    "details",
    "losses",
)
"""Objects whose keys are not fixed."""


@pytest.mark.parametrize("name", document.PAGES)
def test_fields_without_which_older_files_were_written_may_be_missing(name: str) -> None:
    record, tree = document.PAGES[name], json.loads(golden(name))
    required = {field.encode_name for field in msgspec.structs.fields(record) if field.required}
    older = {key: value for key, value in tree.items() if key in required or key == "format"}
    record.from_tree(older)
    for key in required:
        with pytest.raises(InputError, match=f"^{key} is missing$"):
            record.from_tree({name: value for name, value in older.items() if name != key})


@pytest.mark.parametrize("name", document.PAGES)
def test_a_wrong_value_is_named_with_its_place(name: str) -> None:
    """Whatever one value is replaced by: a record, or a line in our words and not in msgspec's."""
    record, said = document.PAGES[name], set()
    for tree in wrong_values(json.loads(golden(name)), most=1):
        try:
            record.from_tree(tree, "FILE")
        except InputError as error:
            said.add(str(error))
    assert said
    for line in said:
        assert line.startswith("FILE: ")
        assert "\n" not in line
        assert not re.search(r"`|\$|Expected|Object", line), line


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"nodes": [{"layer": 0, "site": "attn_in", "channel": -1}]}, "nodes[0].channel is -1, expected a whole numbe"),
        ({"nodes": [{"layer": 0, "site": "in", "channel": 1}]}, "nodes[0].site is 'in', expected one of attn_in, "),
        ({"nodes": [{"layer": True, "site": "attn_in", "channel": 1}]}, "nodes[0].layer is True, expected a whole"),
        ({"nodes": [3]}, "nodes[0] is 3, expected an object"),
        ({"nodes": {}}, "nodes is an object, expected a list"),
        ({"nodes": [{"layer": 0, "channel": 1}]}, "nodes[0].site is missing"),
        ({"edges": [{"from": [0, "attn_in"], "to": END, "weight": 1}]}, "edges[0].from has 2 items, expected 3"),
        ({"edges": [{"from": [0, "attn_in", "x"], "to": END, "weight": 1}]}, "edges[0].from[2] is 'x', expected a who"),
        ({"edges": [{"from": END, "to": END, "weight": None}]}, "edges[0].weight is None, expected a number"),
        ({"edges": [{"from": [9, "attn_in", 1], "to": END, "weight": 1}]}, "an edge's 'from' is 9.attn_in.1, which is"),
        ({"metrics": {"accuracy": 1.5}}, "metrics.accuracy is 1.5, expected a number from 0 to 1 or null"),
        ({"metrics": {"random_circuit_task_loss": ["x"]}}, "random_circuit_task_loss[0] is 'x', expected a number or"),
        ({"metrics": {"random_circuit_task_loss": "x"}}, "random_circuit_task_loss is 'x', expected a number or a lis"),
        ({"calibration": {"shift": [[1, 2, 3]]}}, "calibration.shift[0] has 3 items, expected 2"),
        ({"tie_qk": 1}, "tie_qk is 1, expected true or false"),
        ({"format": "sparse_gpt.circuit/2"}, "format is 'sparse_gpt.circuit/2', but this version reads"),
        ({"format": None}, "format is None, but this version reads 'sparse_gpt.circuit/1'"),
    ],
)  # fmt: skip
def test_messages(change: dict[str, Any], line: str) -> None:
    tree = json.loads(golden("circuit")) | change
    with pytest.raises(InputError) as raised:
        Circuit.from_tree(tree, "FILE")
    assert str(raised.value).startswith("FILE: ")
    assert line in str(raised.value)
    assert str(raised.value).endswith("; delete it or make it again, by python -m launch.prune")


def test_a_value_of_an_object_with_free_keys_is_named_by_its_key() -> None:
    with pytest.raises(InputError, match=r"^nonzeros\.h_0/wte is -1, expected a whole number, not negative$"):
        Manifest.from_tree({"nonzeros": {"h_0/wte": -1}})
    sample = {"tokens": ["a", "b"], "answer": "c", "foil": "d", "values": {"0.attn_in.1": [1, "x"]}}
    with pytest.raises(InputError, match=r"^samples\[0\]\.values\.0\.attn_in\.1\[1\] is 'x', expected a number or "):
        Traces.from_tree({"format": Traces.FORMAT, "samples": [sample]})


def test_nothing_that_is_not_finite_is_written_or_read(tmp_path: Path) -> None:
    path = tmp_path / "bridge.json"
    tree = report_workdirs.bridge()
    path.write_text(json.dumps(tree | {"dense_loss": math.nan}))
    with pytest.raises(InputError, match=r"bridge\.json: dense_loss is None, expected a number;"):
        Bridge.read(path)
    path.write_text(json.dumps(tree | {"independent_loss": math.inf}))
    assert Bridge.read(path).independent_loss is None
    path.unlink()
    with pytest.raises(InputError, match="not finite"):
        msgspec.structs.replace(Bridge.from_tree(tree), sparse_loss=math.nan).write(path)
    assert not path.exists()


def test_objects_that_are_no_file_yet_are_read_as_if_they_were() -> None:
    tree = report_workdirs.quote_circuit()[0]
    tree["edges"][0] |= {"weight": np.float64(0.5), "from": tuple(tree["edges"][0]["from"])}
    found = Circuit.of(tree)
    assert (found.edges[0].weight, Circuit.of(found)) == (0.5, found)
    tree["edges"][0]["weight"] = math.nan
    with pytest.raises(InputError, match=r"^edges\[0\]\.weight is None, expected a number$"):
        Circuit.of(tree)


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    """A record that was put together wrongly is a defect, which is found when it is written."""
    path = tmp_path / "evaluation.json"
    with pytest.raises(msgspec.ValidationError):
        Evaluation(params_sha256="a", pairs=-1, tasks=()).write(path)
    Evaluation(params_sha256="a", pairs=1, tasks=()).write(path)
    assert Evaluation.read(path) == Evaluation(params_sha256="a", pairs=1, tasks=())
    assert Evaluation.read_if_any(tmp_path / "none.json") is None


def test_a_manifest_keeps_what_it_does_not_know() -> None:
    tree = {"step": 3, "trained_params_sha256": "ab", "extra": {"a": [1]}}
    found = Manifest.from_tree(tree)
    assert found.other == {"trained_params_sha256": "ab", "extra": {"a": [1]}}
    assert found.tree() == {"format": Manifest.FORMAT, **tree}
    assert Settings.from_tree({"prune": {"seed": 1}}).model.d_head is None


def test_the_history_has_one_loss_per_trial() -> None:
    tree = json.loads(golden("search"))
    tree["history"][0]["loss"].append(1.0)
    with pytest.raises(InputError, match="step 0 of the history does not have"):
        Search.from_tree(tree)


def test_pages_are_up_to_date(tmp_path: Path) -> None:
    """If this fails, run python -m sparse_gpt.records.document."""
    document.write(tmp_path)
    for folder, other in ((tmp_path, document.FOLDER), (document.FOLDER, tmp_path)):
        for path in folder.iterdir():
            assert (other / path.name).read_text("utf-8") == path.read_text("utf-8"), path.name


def test_every_field_has_a_meaning() -> None:
    for record in document.PAGES.values():
        for part in (record, *document.parts(record)):
            fields = {field.name for field in msgspec.structs.fields(part)}
            assert fields <= document.meanings(part).keys(), part
            assert part.__doc__, part


def test_records_load_without_jax() -> None:
    code = "import sys, sparse_gpt.records; print(sorted({'jax', 'flax', 'orbax'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class _Inner(Part):
    number: int | float | None
    either: list[int] | str | None = None


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ([], "the file is a list, expected an object"),
        ({"number": "x"}, "number is 'x', expected a number or null"),
        ({"number": 1, "either": [1, None]}, "either[1] is None, expected a whole number"),
        ({"number": 1, "either": {}}, "either is an object, expected a list or a string or null"),
    ],
)
def test_messages_of_unions(tree: object, line: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(line)}$"):
        converted(tree, _Inner)
