"""The words that fill the templates: disjoint between train, validation and heldout, within each kind and across kinds.

Three kinds of words have different duties:

- `names`, `functions` and `texts` are free: no behaviour hangs on them. The held-out ones are *reserved*: generated
  training programs do not use them, and they are rare in real code.
- `copies` are names that a task asks the model to copy, so each must be a single token (with its leading space) that
  the model knows. They are ordinary words in every split and are not reserved; what is held out is their combination.
- `suffixes` are the ends of compound names (`user_id`), drawn from the split's own copies.
"""

from dataclasses import dataclass

SPLITS = ("train", "validation", "heldout")


@dataclass(frozen=True)
class Vocabulary:
    """The words of one split. `digits`: last digits of the numbers of this split."""

    names: tuple[str, ...]
    functions: tuple[str, ...]
    texts: tuple[str, ...]
    copies: tuple[str, ...]
    suffixes: tuple[str, ...]
    digits: tuple[int, ...]

    def numbers(self) -> tuple[str, ...]:
        """Whole numbers below 100 with the split's last digits."""
        return tuple(str(10 * tens + digit) for tens in range(10) for digit in self.digits)

    def all_words(self) -> frozenset[str]:
        """Every word of the split, of all kinds."""
        return frozenset(self.names + self.functions + self.texts + self.copies + self.suffixes)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_TRAIN_COPIES = _words(
    "name value size path data index key line text start count item limit number result user title length state mode "
    "level first left low node owner file field parent"
)

VOCABULARY = {
    "train": Vocabulary(
        names=_TRAIN_COPIES
        + _words("items values names lines rows nodes page book table record part seen found done ready words users"),
        functions=_words(
            "get make build find check show send update parse create move clean print_all start_run add_item close_all"
        ),
        texts=_words(
            "hello world open the door is not my cat a dog was here all good day one two new car big tree no more time "
            "old house red box"
        ),
        copies=_TRAIN_COPIES,
        suffixes=_words("name id list path size data"),
        digits=(0, 1, 2, 3, 4, 5),
    ),
    "validation": Vocabulary(
        names=_words(
            "window letter engine camera market paper river total code label group format entry sample channel engines"
        ),
        functions=_words("draw fetch apply remove collect filter_all run_test merge"),
        texts=_words("this water street some morning over music from warm horse very under please stop"),
        copies=_words("total code label end weight depth group format entry rate active kind type"),
        suffixes=_words("code type group format"),
        digits=(6, 7),
    ),
    "heldout": Vocabulary(
        names=_words(
            "pen hill nest coin farm wolf bell leaf fox lion bean rope tent moon corn goat duck crab pens hills"
        ),
        functions=_words("mix fold bake melt lift pour rinse stir weigh dig"),
        texts=_words(
            "gold rain wind snow soft deep calm tired north honey eagle lake sand sweet brave lazy tall fresh dusty"
        ),
        copies=_words(
            "score color width height price speed right last high step age year message buffer position address pattern"
        ),
        suffixes=_words("width right last message"),
        digits=(8, 9),
    ),
}


def heldout_words() -> frozenset[str]:
    """Reserved words: free names, functions and texts of the held-out split, which training programs must not use.

    Words that tasks ask the model to copy are not among them: a name that was never seen cannot be copied.
    """
    words = VOCABULARY["heldout"]
    return frozenset(words.names + words.functions + words.texts)
