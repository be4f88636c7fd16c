"""Whatever a JSON file holds, or is, its readers give a result or one line that a person can act on."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparse_gpt.errors import InputError
from tests import damage
from tests.json_readers import READERS, Reader, wrong_values

MOST = 60  # wrong values of one file


def outcome(reader: Reader, folder: Path) -> str:
    """What a reader did: "" for a result or one line, else what was wrong with it."""
    try:
        reader.read(folder)
    except InputError as error:
        said = str(error)
        return "" if "\n" not in said and len(said) < 800 else f"said {said[:800]!r}"
    except Exception as error:  # what this test looks for
        return f"raised {error!r:.300}"
    return ""


def damaged(reader: Reader, folder: Path, damages: Iterator[tuple[str, Callable[[Path], object]]]) -> list[str]:
    """What went wrong after each damage, which is done to a file that is good again each time."""
    good = folder / "good"
    good.mkdir()
    reader.make(good)
    found = []
    for name, change in damages:
        place = folder / "damaged"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(good, place)
        change(place / reader.file)
        if reported := outcome(reader, place):
            found.append(f"{name}: {reported}")
    return found


def contents(path: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    for name, change in damage.CONTENTS.items():
        yield name, lambda path, change=change: path.write_bytes(change(path.read_bytes()))  # type: ignore[misc]
    for name, put in damage.PLACES.items():
        yield name, lambda path, put=put: (path.unlink(), put(path))  # type: ignore[misc]


def values(path: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    first, *rest = path.read_text("utf-8").splitlines(keepends=True)
    lines = path.suffix == ".jsonl"
    value = json.loads(first if lines else path.read_text("utf-8"))
    wrong = list(wrong_values(value))
    for other in itertools.islice(wrong, 0, None, max(1, len(wrong) // MOST)):
        text = json.dumps(other) + ("\n" + "".join(rest) if lines else "")
        yield text[:300], lambda path, text=text: path.write_text(text)  # type: ignore[misc]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_good_file_is_read(reader: Reader, tmp_path: Path) -> None:
    reader.make(tmp_path)
    reader.read(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files_give_a_result_or_one_line(reader: Reader, tmp_path: Path) -> None:
    assert not damaged(reader, tmp_path, contents(Path(reader.file)))


@pytest.mark.slow
@pytest.mark.parametrize("reader", [r for r in READERS if not r.file.endswith(".bpe")], ids=lambda reader: reader.name)
def test_values_of_a_wrong_type_give_a_result_or_one_line(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    reader.make(tmp_path / "first")
    found = damaged(reader, tmp_path, values(tmp_path / "first" / reader.file))
    assert not found, "\n".join(found[:5])
