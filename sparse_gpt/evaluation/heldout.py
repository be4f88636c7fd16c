"""The rule by which corpora leave out documents that contain held-out samples of the tasks."""

import functools
import hashlib

from sparse_gpt import tasks
from sparse_gpt.config import DataConfig
from sparse_gpt.data.cleaning import Rule
from sparse_gpt.data.leakage import contains_any

PAIRS = 256  # per task and variant


@functools.cache
def heldout_rule() -> Rule:
    """For `prepare_corpus`: leaves out documents with any of about 20,000 held-out prompts in them, and
    those with a word that only the tasks' template families use.

    The name holds a hash of the prompts, so that a corpus prepared for other tasks or words is not taken for this one.
    Families are not in it: no document that we have seen has one of their words, so their rule changes no corpus.
    """
    prompts = sorted(
        {
            sample.prompt
            for task in tasks.TASKS.values()
            for variant in ("main", "shifted")
            for pair in task.pairs("heldout", PAIRS, 0, variant)
            for sample in (pair.first, pair.second)
        }
    )
    digest = hashlib.sha256("\0".join(prompts).encode()).hexdigest()
    # Built when the first document comes: a corpus that is there already has none.
    search = functools.cache(lambda: contains_any(prompts))

    def reject(text: str) -> bool:
        return tasks.has_made_up_word(text.encode(errors="replace")) or search()(text)

    return Rule(reject, f"held-out task samples {digest[:16]}")


def heldout_rule_for(data: DataConfig) -> Rule | None:
    """`heldout_rule`, or none for a corpus that the configuration names: it is not prepared here."""
    return None if data.corpus else heldout_rule()
