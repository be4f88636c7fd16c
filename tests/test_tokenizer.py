"""The tokenizer: any bytes and back, three formats, equality with tiktoken and with the tokenizers library."""

import json
import sysconfig
from pathlib import Path

import pytest
import tiktoken
import tiktoken.load
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_gpt.data.tokenizer import END_OF_TEXT, PATTERN, Tokenizer, train_tokenizer
from sparse_gpt.errors import InputError

STDLIB = Path(sysconfig.get_paths()["stdlib"])
FILES = ["argparse.py", "ast.py", "asyncio/base_events.py", "codecs.py", "email/message.py", "heapq.py", "inspect.py"]
VOCABULARY = 1024


def source_files() -> list[str]:
    return [(STDLIB / name).read_text(encoding="utf-8") for name in FILES]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(source_files()[::2], VOCABULARY)


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return folder


def test_size_and_end_of_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == VOCABULARY
    assert tokenizer.eot_id == VOCABULARY - 1
    assert tokenizer.token_bytes(tokenizer.eot_id) == END_OF_TEXT.encode()
    assert len({tokenizer.token_bytes(i) for i in range(VOCABULARY)}) == VOCABULARY


def test_end_of_text_in_a_document_is_ordinary_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(f"a{END_OF_TEXT}b")
    assert tokenizer.eot_id not in ids
    assert tokenizer.decode(ids) == f"a{END_OF_TEXT}b"


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_round_trip(tokenizer: Tokenizer, data: bytes) -> None:
    ids = tokenizer.encode_bytes(data)
    assert tokenizer.decode_bytes(ids) == data
    assert all(0 <= i < tokenizer.eot_id for i in ids)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_round_trips_and_bytes_agree(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_bytes(text.encode()) == ids
    assert tokenizer.encode_array(text).tolist() == ids


def test_invalid_utf8_keeps_the_text_around_it(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_bytes(b"import os\xff\xfeimport os")
    inner = [tokenizer.encode_bytes(bytes([byte])) for byte in (0xFF, 0xFE)]
    assert ids == tokenizer.encode("import os") + inner[0] + inner[1] + tokenizer.encode("import os")
    assert all(len(part) == 1 for part in inner)


@pytest.mark.parametrize("run", [" ", "\t", "\n", " \n", "a", "(", "é", "#"])
def test_very_long_runs(tokenizer: Tokenizer, run: str) -> None:
    text = "x" + run * 100_000 + "y"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_lone_surrogates_round_trip_as_bytes(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode_bytes(tokenizer.encode("a\ud800b")) == b"a\xed\xa0\x80b"


def test_tiktoken_reads_the_files_and_gives_the_same_ids(
    tokenizer: Tokenizer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    special = {END_OF_TEXT: VOCABULARY - 1}
    other = tiktoken.Encoding("files", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)
    assert other.n_vocab == VOCABULARY
    for text in source_files():
        assert other.encode_ordinary(text) == tokenizer.encode(text)


def test_tokenizers_reads_the_file_and_gives_the_same_ids(tokenizer: Tokenizer, folder: Path) -> None:
    other = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert other.get_vocab_size() == VOCABULARY
    assert other.token_to_id(END_OF_TEXT) == VOCABULARY - 1
    for text in source_files():
        ids = tokenizer.encode(text)
        assert other.encode(text, add_special_tokens=False).ids == ids
        assert other.decode(ids) == text


def test_loading_and_saving_again_changes_nothing(tokenizer: Tokenizer, folder: Path, tmp_path: Path) -> None:
    names = ["encoder.json", "tokenizer.json", "vocab.bpe"]
    for part, kept in (("all", names), ("pair", ["encoder.json", "vocab.bpe"]), ("one", ["tokenizer.json"])):
        source, target = tmp_path / part, tmp_path / (part + " again")
        source.mkdir()
        for name in kept:
            (source / name).write_bytes((folder / name).read_bytes())
        loaded = Tokenizer.load(source)
        assert loaded.sha256 == tokenizer.sha256
        loaded.save(target)
        assert [(target / name).read_bytes() for name in names] == [(folder / name).read_bytes() for name in names]


def test_training_is_deterministic(tokenizer: Tokenizer) -> None:
    assert train_tokenizer(source_files()[::2], VOCABULARY).sha256 == tokenizer.sha256
    assert train_tokenizer(source_files()[1::2], VOCABULARY).sha256 != tokenizer.sha256


def test_reference_files_without_end_of_text_in_the_table(tokenizer: Tokenizer, folder: Path, tmp_path: Path) -> None:
    table = json.loads((folder / "encoder.json").read_text())
    del table[END_OF_TEXT]
    (tmp_path / "encoder.json").write_text(json.dumps(table))
    (tmp_path / "vocab.bpe").write_bytes((folder / "vocab.bpe").read_bytes())
    assert Tokenizer.load(tmp_path).sha256 == tokenizer.sha256


def test_quotes_and_brackets_of_the_tasks_are_single_tokens() -> None:
    """What the split pattern is chosen for: an opening bracket and a quote, or the closing pair and a line end."""
    pieces = ['("', "('", '")\n', "')\n"]
    tokenizer = train_tokenizer(["(\"a\")\n('b')\n" * 50], 257 + 5)  # those four, by way of ")\n"
    for piece in pieces:
        assert len(tokenizer.encode("f" + piece + "f")) == 3


# -- bad input -----------------------------------------------------------------------------------------------------


def copy(folder: Path, target: Path) -> Path:
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokenizer there"):
        Tokenizer.load(tmp_path / "nowhere")
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(InputError, match="no tokenizer there"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("name", ["encoder.json", "tokenizer.json", "vocab.bpe"])
def test_truncated_files_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    path = copy(folder, tmp_path) / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=str(tmp_path)):
        Tokenizer.load(tmp_path)


def test_files_of_two_tokenizers_are_refused(folder: Path, tmp_path: Path) -> None:
    train_tokenizer(source_files()[1:2], 300).save(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(InputError, match="differ"):
        Tokenizer.load(tmp_path)


def test_another_split_pattern_is_refused(folder: Path, tmp_path: Path) -> None:
    state = json.loads((folder / "tokenizer.json").read_text())
    state["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+|\W+"
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="another pattern"):
        Tokenizer.load(tmp_path)


def test_swapped_ids_are_refused(folder: Path, tmp_path: Path) -> None:
    """Ids out of the order of merges would be merged in another order by tiktoken than by GPT-2's procedure."""
    (tmp_path / "vocab.bpe").write_bytes((folder / "vocab.bpe").read_bytes())
    table = json.loads((folder / "encoder.json").read_text())
    names = list(table)
    table[names[300]], table[names[301]] = table[names[301]], table[names[300]]
    (tmp_path / "encoder.json").write_text(json.dumps(table))
    with pytest.raises(InputError, match="order of their ids"):
        Tokenizer.load(tmp_path)


def test_impossible_vocabularies(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="at least 257"):
        train_tokenizer(["a"], 256)
    with pytest.raises(InputError, match="allows only"):
        train_tokenizer(["a b a b"], 2048)
    with pytest.raises(InputError, match="outside the vocabulary"):
        tokenizer.decode([VOCABULARY])
