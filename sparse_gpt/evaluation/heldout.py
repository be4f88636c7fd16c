"""The rule by which corpora leave out documents that contain held-out samples of the tasks."""

import functools
import hashlib

from sparse_gpt import tasks
from sparse_gpt.config import DataConfig
from sparse_gpt.data.cleaning import Rule


@functools.cache
def heldout_rule() -> Rule:
    """For `prepare_corpus`: leaves out documents with a reserved word, of which every held-out sample of the tasks has
    one, and those with a word that only the tasks' template families use.

    The name holds a hash of the reserved words, so that a corpus prepared for other words is not taken for this one.
    Words of families are not in it: no document that we have seen has one, so they change no corpus.
    """
    digest = hashlib.sha256("\0".join(sorted(tasks.heldout_words())).encode()).hexdigest()

    def reject(text: str) -> bool:
        document = text.encode(errors="replace")
        return tasks.has_heldout_word(document) or tasks.has_made_up_word(document)

    return Rule(reject, f"held-out task samples {digest[:16]}")


def heldout_rule_for(data: DataConfig) -> Rule | None:
    """`heldout_rule`, or none for a corpus that the configuration names: it is not prepared here."""
    return None if data.corpus else heldout_rule()
