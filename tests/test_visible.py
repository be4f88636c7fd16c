"""Tokens as people see them: bytes of characters, white space and control characters cannot be mistaken."""

import doctest

import pytest

from sparse_gpt import visible
from sparse_gpt.data import idioms
from sparse_gpt.data.tokenizer import train_tokenizer


@pytest.mark.parametrize(
    ("data", "text", "shown"),
    [
        (b" in", " in", "·in"),
        ("é".encode(), "é", "é"),
        ("€".encode()[:2], "<E2><82>", "<E2><82>"),
        (b" \xe2", " <E2>", "·<E2>"),
        (b"\x82)", "<82>)", "<82>)"),
        (b"\r\n\t", "\r\n\t", "␍↵⇥"),
        (b"\x00\x1b[1m\x7f", "\x00\x1b[1m\x7f", "<00><1B>[1m<7F>"),
        ("\xa0\u200b\u202e".encode(), "\xa0\u200b\u202e", "<U+00A0><U+200B><U+202E>"),
        ("·↵␍⇥∅".encode(), "·↵␍⇥∅", "<U+00B7><U+21B5><U+240D><U+21E5><U+2205>"),
        (b"", "", "∅"),
    ],
)
def test_how_a_token_is_shown(data: bytes, text: str, shown: str) -> None:
    assert visible.token_text(data) == text
    assert visible.visible(text) == shown


def test_no_two_single_bytes_look_the_same() -> None:
    tokenizer = train_tokenizer(idioms.documents(0, 0, 5), 257)
    shown = [visible.visible(tokenizer.token_text(token)) for token in range(tokenizer.vocab_size)]
    assert len(set(shown)) == len(shown) > 256
    assert not any("\ufffd" in each for each in shown)


def test_the_example() -> None:
    assert doctest.testmod(visible).failed == 0
