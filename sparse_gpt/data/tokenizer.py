"""Byte-level BPE in the format of GPT-2, with the split pattern of GPT-4.

Training is done by the `tokenizers` library; encoding by `tiktoken`, which is about six times faster on source code
and releases the interpreter lock, so that threads tokenize a corpus in parallel. Both read the files written here:
``tokenizer.json`` (tokenizers) and ``encoder.json`` + ``vocab.bpe`` (tiktoken's and the reference's format).
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tiktoken
import tokenizers
from msgspec import Meta
from tokenizers import decoders, models, pre_tokenizers, trainers

from sparse_gpt.errors import InputError
from sparse_gpt.io import disk_errors, read_bytes, write_atomic
from sparse_gpt.records import Part
from sparse_gpt.records.base import Count, read_checked
from sparse_gpt.visible import token_text

# GPT-4's split pattern without its rule for English contractions (as the reference uses it).
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
END_OF_TEXT = "<|endoftext|>"
SPECIAL = (END_OF_TEXT, "<|startoftext|>")
SMALLEST_VOCABULARY = 257  # every byte, and <|endoftext|>

# The lookahead of the pattern backtracks over a whole run of white space and overflows the regex engine's stack on
# very long runs, so that such runs are cut before they reach it. Decoding is unaffected.
_WHITE_RUN = 4096
_LONG_WHITE = re.compile(rf"\s{{{_WHITE_RUN}}}(?=\s)")
_INVALID_UTF8 = re.compile("([\udc80-\udcff])")  # how "surrogateescape" marks single invalid bytes


@functools.cache
def byte_symbols() -> tuple[str, ...]:
    """GPT-2's printable stand-in for each of the 256 bytes: itself where printable, else the next of U+0100…"""
    symbols, spare = [], 256
    for byte in range(256):
        if chr(byte).isprintable() and byte != ord(" "):
            symbols.append(chr(byte))
        else:
            symbols.append(chr(spare))
            spare += 1
    return tuple(symbols)


@functools.cache
def _symbol_bytes() -> dict[str, int]:
    return {symbol: byte for byte, symbol in enumerate(byte_symbols())}


def _to_symbols(data: bytes) -> str:
    return "".join(byte_symbols()[byte] for byte in data)


def _from_symbols(text: str) -> bytes:
    return bytes(_symbol_bytes()[symbol] for symbol in text)


class Tokenizer:
    """An immutable tokenizer: any bytes to ids and back.

    Attributes:
        vocab_size: number of ids, specials included.
        eot_id: id of ``<|endoftext|>``, which `encode` never produces.
        special_ids: ids of all special tokens.
        sha256: of the canonical encoder.json and vocab.bpe; equal tokenizers have equal hashes, whatever they were
            loaded from.
    """

    def __init__(self, ranks: Mapping[bytes, int], merges: Sequence[tuple[bytes, bytes]], special: Mapping[str, int]):
        """ranks: id of every ordinary token; merges in order of priority; special: ids of special tokens."""
        self._ranks = dict(ranks)
        self._merges = list(merges)
        self._special = dict(special)
        _check(self._ranks, self._merges, self._special)
        self.vocab_size: int = len(self._ranks) + len(self._special)
        self.eot_id: int = self._special[END_OF_TEXT]
        self.special_ids: frozenset[int] = frozenset(self._special.values())
        self._core = tiktoken.Encoding(
            "sparse_gpt", pat_str=PATTERN, mergeable_ranks=self._ranks, special_tokens=self._special
        )
        self._bytes_of = {i: data for data, i in self._ranks.items()}
        self._bytes_of |= {i: name.encode() for name, i in self._special.items()}
        self.sha256: str = hashlib.sha256(self._encoder_json() + self._vocab_bpe()).hexdigest()

    # -- text to ids and back -------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; special tokens in it are treated as ordinary text."""
        return self.encode_array(text).tolist()

    def encode_array(self, text: str) -> np.ndarray:
        """The same as a uint32 array of shape (tokens,). Releases the interpreter lock."""
        if not text.isascii() and _has_surrogates(text):
            return np.asarray(self.encode_bytes(text.encode("utf-8", "surrogatepass")), np.uint32)
        if _may_have_long_run(text):
            return np.concatenate([self._encode_part(part) for part in _cut_white_runs(text)])
        return self._encode_part(text)

    def _encode_part(self, text: str) -> np.ndarray:
        return self._core.encode_to_numpy(text, disallowed_special=())

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of any bytes. Valid UTF-8 is encoded as text; each byte that is not stands alone, as its own token."""
        text = data.decode("utf-8", "surrogateescape")
        if text.isascii() or not _has_surrogates(text):
            return self.encode(text)
        ids: list[int] = []
        for part in _INVALID_UTF8.split(text):
            if part and 0xDC80 <= ord(part[0]) <= 0xDCFF:
                ids.append(self._ranks[bytes([ord(part) - 0xDC00])])
            elif part:
                ids.extend(self.encode(part))
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`. Raises InputError for an id outside the vocabulary."""
        return b"".join(self.token_bytes(int(i)) for i in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not valid UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id (for a special token its name). Raises InputError if it is outside the vocabulary."""
        if token not in self._bytes_of:
            raise InputError(f"token {token}: outside the vocabulary of {self.vocab_size} entries")
        return self._bytes_of[token]

    def token_text(self, token: int) -> str:
        """The text of one id as people read it: bytes that are only a part of a character stand as ``<E2>``."""
        return token_text(self.token_bytes(token))

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, encoder.json and vocab.bpe; the same tokenizer gives the same bytes."""
        folder = Path(folder)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "encoder.json", self._encoder_json(), alone=True)
        write_atomic(folder / "vocab.bpe", self._vocab_bpe(), alone=True)
        write_atomic(folder / "tokenizer.json", self.to_huggingface().to_str(pretty=False).encode(), alone=True)

    def _vocabulary(self) -> dict[str, int]:
        entries = {_to_symbols(data): i for data, i in self._ranks.items()} | self._special
        return dict(sorted(entries.items(), key=lambda entry: entry[1]))

    def _encoder_json(self) -> bytes:
        return json.dumps(self._vocabulary()).encode()

    def _vocab_bpe(self) -> bytes:
        lines = ["#version: 0.2"] + [f"{_to_symbols(left)} {_to_symbols(right)}" for left, right in self._merges]
        return ("\n".join(lines) + "\n").encode()

    def to_huggingface(self) -> tokenizers.Tokenizer:
        """The same tokenizer as an object of the `tokenizers` library."""
        merges = [(_to_symbols(left), _to_symbols(right)) for left, right in self._merges]
        result = _untrained(models.BPE(vocab=self._vocabulary(), merges=merges))
        result.add_special_tokens(list(self._special))
        return result

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Reads tokenizer.json, or encoder.json + vocab.bpe; when both are there they must agree.

        Raises:
            InputError: files are missing, damaged, contradict each other, or split text in another way.
        """
        folder = Path(folder)
        pair = folder / "encoder.json", folder / "vocab.bpe"
        found = []
        if (folder / "tokenizer.json").is_file():
            found.append(_load_huggingface(folder / "tokenizer.json"))
        if all(path.is_file() for path in pair):
            found.append(_load_pair(*pair))
        if not found:
            raise InputError(f"{folder}: no tokenizer there; expected tokenizer.json, or encoder.json and vocab.bpe")
        if found[0].sha256 != found[-1].sha256:
            raise InputError(f"{folder}: tokenizer.json and encoder.json + vocab.bpe differ; remove the wrong one")
        return found[0]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns a vocabulary of exactly `vocab_size` entries, ``<|endoftext|>`` last. The same texts give the same result.

    Raises:
        InputError: `vocab_size` is below 257, or the texts are too small for so many entries.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise InputError(f"model.vocab_size={vocab_size}: a byte-level tokenizer needs at least {SMALLEST_VOCABULARY}")
    learner = _untrained(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    learner.train_from_iterator(_short_runs(texts), trainer)
    state = json.loads(learner.to_str())["model"]
    ranks = {_from_symbols(token): i for token, i in state["vocab"].items()}
    if len(ranks) < vocab_size - 1:
        raise InputError(
            f"model.vocab_size={vocab_size}: the text allows only {len(ranks) + 1} entries; lower it or give more data"
        )
    return Tokenizer(ranks, _parse_merges(state["merges"]), {END_OF_TEXT: vocab_size - 1})


def _untrained(model: models.BPE) -> tokenizers.Tokenizer:
    result = tokenizers.Tokenizer(model)
    result.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    result.decoder = decoders.ByteLevel()
    return result


def _short_runs(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from _cut_white_runs(text) if _may_have_long_run(text) else (text,)


def _may_have_long_run(text: str) -> bool:
    """Looks at every 2048th character only: a run of 4096 covers one of those and the 2048 characters after it."""
    half = _WHITE_RUN // 2
    return any(text[i].isspace() and text[i : i + half].isspace() for i in range(0, len(text) - half + 1, half))


def _cut_white_runs(text: str) -> Iterator[str]:
    start = 0
    for run in _LONG_WHITE.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _parse_merges(merges: Iterable[str | Sequence[str]]) -> list[tuple[bytes, bytes]]:
    """Merges as byte pairs; a second merge that builds the same token is dropped: ids follow merges one to one."""
    result: dict[bytes, tuple[bytes, bytes]] = {}
    for merge in merges:
        left, right = (_from_symbols(part) for part in (merge.split(" ") if isinstance(merge, str) else merge))
        result.setdefault(left + right, (left, right))
    return list(result.values())


_Entries = dict[str, Count]
_Merge = Annotated[str, Meta(pattern="^[^ ]* [^ ]*$", extra={"expected": "a pair of texts"})]


class _PreTokenizer(Part):
    type: str
    pattern: dict[str, str] | None = None


class _PreTokenizers(Part):
    pretokenizers: list[_PreTokenizer]


class _AddedToken(Part):
    content: str
    id: Count


class _Model(Part):
    vocab: _Entries
    merges: list[_Merge | tuple[str, str]]


class _HuggingFace(Part):
    """tokenizer.json, as the library `tokenizers` writes it."""

    pre_tokenizer: _PreTokenizers
    added_tokens: list[_AddedToken]
    model: _Model


def _load_huggingface(path: Path) -> Tokenizer:
    state = read_checked(path, _HuggingFace)
    try:
        steps = state["pre_tokenizer"]["pretokenizers"]
        if not any(step["type"] == "Split" and step["pattern"].get("Regex") == PATTERN for step in steps):
            raise InputError(f"{path}: splits text by another pattern than this project's; train or convert it anew")
        special = {token["content"]: int(token["id"]) for token in state["added_tokens"]}
        return _build(path, state["model"]["vocab"], state["model"]["merges"], special)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a byte-level BPE tokenizer ({error!r})") from error


def _load_pair(encoder: Path, vocab: Path) -> Tokenizer:
    entries = read_checked(encoder, _Entries)
    try:
        lines = read_bytes(vocab).decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{vocab}: cannot be read ({error})") from error
    merges = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]
    return _build(encoder, entries, merges, {})


def _build(
    path: Path, entries: Mapping[str, int], merges: Iterable[str | Sequence[str]], special: Mapping[str, int]
) -> Tokenizer:
    special = {name: entries[name] for name in SPECIAL if name in entries} | dict(special)
    special.setdefault(END_OF_TEXT, len(entries))  # the reference's encoder.json may leave it out
    try:
        ranks = {_from_symbols(token): int(i) for token, i in entries.items() if token not in special}
        return Tokenizer(ranks, _parse_merges(merges), special)
    except (KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a usable byte-level BPE vocabulary ({error})") from error


def _check(ranks: Mapping[bytes, int], merges: Sequence[tuple[bytes, bytes]], special: Mapping[str, int]) -> None:
    """Raises ValueError unless ids are 0…n−1, every byte is a token and merges build the other tokens in id order.

    The last rule makes "merge the pair whose result has the lowest id" (tiktoken) and "apply the first merge of the
    list" (GPT-2) the same procedure.
    """
    ids = sorted([*ranks.values(), *special.values()])
    if ids != list(range(len(ids))):
        raise ValueError(f"ids must be 0 to {len(ids) - 1}, each once")
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise ValueError(f"byte {missing[0]} has no token")
    built = [left + right for left, right in merges]
    longer = sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__)
    if built != longer:
        raise ValueError("the merges do not build the tokens in the order of their ids")
