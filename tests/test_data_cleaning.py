"""Cleaning: what is left out and why, duplicates, splits by content."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_gpt.data.cleaning import (
    SPLITS,
    Cleaned,
    SeenTable,
    clean,
    duplicate_problem,
    has_secret,
    sketch_bands,
)


def cleaned(content: str | bytes, near: bool = True) -> Cleaned:
    return clean(content, max_bytes=100_000, validation_fraction=0.1, near_duplicates=near)


def program(seed: int, lines: int = 60) -> str:
    rng = random.Random(seed)
    word = lambda: "".join(rng.choices("abcdefghij_", k=7))  # noqa: E731 (shortest)
    return "".join(f"{word()} = {word()}({word()}, {rng.randrange(1000)})\n" for _ in range(lines))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"x" * 100_001, "too_large"),
        (b"import os\0import sys", "binary"),
        (b"name = '\xe9t\xe9'  # latin-1", "not_utf8"),
        (b"   \n\n  # short \n", "too_small"),
        (b"", "too_small"),
        ("a lone surrogate \ud800 in JSON", "not_utf8"),
    ],
)
def test_problems(content: bytes | str, problem: str) -> None:
    assert cleaned(content) == Cleaned(problem)


def test_line_ends_and_byte_order_mark_are_normalized() -> None:
    plain = cleaned(b"def f():\n    return 1\n")
    other = cleaned(b"\xef\xbb\xbfdef f():\r\n    return 1\r")
    assert other.text == plain.text == "def f():\n    return 1\n"
    assert other.split == plain.split
    assert duplicate_keys_equal(plain, other)


def duplicate_keys_equal(a: Cleaned, b: Cleaned) -> bool:
    return bool(a.keys[0] == b.keys[0])


def test_reject_sees_the_text_and_is_counted_apart() -> None:
    seen: list[str] = []

    def reject(text: str) -> bool:
        seen.append(text)
        return "held_out" in text

    for content, problem in (("print('held_out_name')\n", "rejected"), ("print('another_name')\n", "")):
        assert clean(content, 1000, 0.1, False, reject).problem == problem
    assert len(seen) == 2


def secret(*parts: str) -> bytes:
    return f"value = '{''.join(parts)}'\n".encode()  # in parts, so that this file does not look like a leak itself


@pytest.mark.parametrize(
    "data",
    [
        secret("AKIA", "IOSFODNN7ABCDEFG"),
        secret("ghp", "_", "a1B2" * 9),
        secret("github_pat", "_", "A1b2" * 11),
        secret("xoxb", "-123456789012-", "abcdefABCDEF12"),
        secret("AIza", "SyA1234567890abcdefghijklmnopqrstuv"),
        secret("sk", "-", "abcd1234" * 6),
        secret("-----BEGIN RSA ", "PRIVATE KEY-----\n", "MIIEpAIBAAKCAQEA7bq9"),
    ],
)
def test_secrets_are_seen(data: bytes) -> None:
    assert has_secret(data)
    assert cleaned(b"# configuration\n" + data).problem == "secret"


@pytest.mark.parametrize(
    "data",
    [b"def sk_live_value(): pass", b"if line == '-----BEGIN PRIVATE KEY-----':", b"AKIA is a prefix", b"sk-learn"],
)
def test_talk_of_secrets_is_not_one(data: bytes) -> None:
    assert not has_secret(data)


# -- splits --------------------------------------------------------------------------------------------------------


def test_split_shares_follow_the_fraction() -> None:
    counts = dict.fromkeys(SPLITS, 0)
    for i in range(4000):
        counts[cleaned(f"print('document number {i}')\n", near=False).split] += 1
    assert counts["validation"] == pytest.approx(400, abs=80)
    assert counts["test"] == pytest.approx(400, abs=80)


def test_split_depends_on_content_alone() -> None:
    text = program(0)
    assert {cleaned(content).split for content in (text, text.encode(), text.replace("\n", "\r\n"))} == {
        cleaned(text).split
    }


# -- duplicates ----------------------------------------------------------------------------------------------------


def test_exact_duplicate() -> None:
    seen = SeenTable(1024)
    assert duplicate_problem(seen, cleaned(program(1)).keys) == ""
    assert duplicate_problem(seen, cleaned(program(1)).keys) == "duplicate"
    assert duplicate_problem(seen, cleaned(program(2)).keys) == ""


def test_near_duplicates_are_found_and_others_kept() -> None:
    """Copies with one line of sixty changed, or reformatted, against unrelated documents and half-shared ones."""
    near, half = 0, 0
    for i in range(50):
        lines = program(i).splitlines(keepends=True)
        seen = SeenTable(4096)
        assert duplicate_problem(seen, cleaned("".join(lines)).keys) == ""
        lines[i] = program(1000 + i, lines=1)
        near += duplicate_problem(seen, cleaned("".join(lines)).keys) == "near_duplicate"
        other = "".join(lines[:30]) + program(2000 + i, lines=30)
        half += duplicate_problem(seen, cleaned(other).keys) != ""
        assert duplicate_problem(seen, cleaned(program(3000 + i)).keys) == ""
    assert near >= 47
    assert half <= 5


def test_white_space_does_not_hide_a_duplicate() -> None:
    text = program(5)
    bands = sketch_bands(text.encode())
    assert (sketch_bands(text.replace("\n", "\n\n\n").replace(" = ", "=").encode()) == bands).all()
    assert not (sketch_bands(program(6).encode()) == bands).any()


def test_band_matches_follow_the_stated_curve() -> None:
    """Documents sharing a fraction of shingles share a band about as often as 1-(1-s^8)^8 says."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        a = rng.integers(33, 127, 4000).astype(np.uint8)
        b = a.copy()
        b[:444] = rng.integers(33, 127, 444)  # Jaccard similarity (4000-444) / (4000+444) = 0.8
        found += bool((sketch_bands(a.tobytes()) == sketch_bands(b.tobytes())).any())
    assert found / 200 == pytest.approx(0.777, abs=0.12)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=2000))
def test_sketch_takes_any_bytes(data: bytes) -> None:
    bands = sketch_bands(data)
    assert bands.shape in ((0,), (8,))
    assert len(np.unique(bands)) == len(bands)


def test_short_documents_are_not_judged() -> None:
    assert sketch_bands(b"x = 1\n" * 20).shape == (0,)


def test_seen_table_is_bounded_and_forgets_the_oldest() -> None:
    seen = SeenTable(capacity=64)
    keys = np.random.default_rng(0).integers(1, 2**63, 4096).astype(np.uint64)
    for key in keys:
        seen.add(key[None])
    assert seen.contains(keys[-8:]).all()
    assert seen.contains(keys).sum() <= 64


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 400), max_size=6))
def test_seen_table_does_not_depend_on_portions(cuts: list[int]) -> None:
    """What lets a restart rebuild the table from a log."""
    keys = np.random.default_rng(1).integers(1, 2**63, 400).astype(np.uint64)
    one, two = SeenTable(64), SeenTable(64)
    one.add(keys)
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 400], strict=True):
        two.add(keys[start:stop])
    assert (one.contains(keys) == two.contains(keys)).all()
