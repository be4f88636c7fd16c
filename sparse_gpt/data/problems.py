"""Why a document is left out of a corpus, and what its owner can do about it."""

from collections.abc import Mapping

PROBLEMS: Mapping[str, str] = {
    "unreadable": "the file cannot be read: check its permissions",
    "damaged": "the file is truncated or damaged: fetch it again (what stands before the damage is used)",
    "not_json": "every line must be a whole JSON object: make lines of an array with jq -c '.[]' FILE",
    "not_object": "every line must be a JSON object: make lines of an array with jq -c '.[]' FILE",
    "no_column": "the column is missing there: name another one with #COLUMN",
    "no_text": "the column holds something else than text there: name another one with #COLUMN",
    "too_large": "longer than data.max_file_bytes",
    "too_small": "",
    "binary": "not text: name only text files, and unpack archives",
    "not_utf8": "another encoding: convert it with iconv -f UTF-16 (or LATIN1) -t UTF-8 FILE",
    "secret": "",
    "rejected": "",
    "duplicate": "",
    "near_duplicate": "",
}
"""By the reason that is counted in a corpus's manifest; "" where there is nothing to do."""


def counts(dropped: Mapping[str, int]) -> str:
    """ "3 not_json, 1 too_large": how many documents were left out for which reason, "" for none."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))


def advice(dropped: Mapping[str, int]) -> list[str]:
    """What to do about the reasons that occurred, one line for each of which something can be done."""
    return [f"{reason}: {PROBLEMS[reason]}" for reason in sorted(dropped) if PROBLEMS.get(reason)]
