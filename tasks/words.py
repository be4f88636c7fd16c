"""The words that fill the templates: disjoint between train, validation and heldout, within each kind and across kinds.

Three kinds of words have different duties:

- `names`, `functions` and `texts` are free: no behavior hangs on them. The held-out ones are *reserved*: words that
  hardly occur in code, so that every document with one of them can be kept out of the training data. Each held-out
  sample has at least one, hence none can occur there.
- `copies` are names that a task asks the model to copy, so each must be a single token (with its leading space) that
  the model knows. They are ordinary words in every split and are not reserved; what is held out is their combination.
- `suffixes` are the ends of compound names (`user_id`), drawn from the split's own copies.

Held-out words are rare in code, so a tokenizer spells them in several pieces. About half of the free words of the other
splits are of that kind too: a circuit that was chosen on words of one token alone need not work on others.
"""

import functools
from dataclasses import dataclass

SPLITS = ("train", "validation", "heldout")


@dataclass(frozen=True)
class Vocabulary:
    """The words of one split. `letters`: names of one letter; `digits`: last digits of the numbers."""

    names: tuple[str, ...]
    functions: tuple[str, ...]
    texts: tuple[str, ...]
    copies: tuple[str, ...]
    suffixes: tuple[str, ...]
    letters: tuple[str, ...]
    digits: tuple[int, ...]

    @functools.cached_property
    def numbers(self) -> tuple[str, ...]:
        """Whole numbers below 100 with the split's last digits."""
        return tuple(str(10 * tens + digit) for tens in range(10) for digit in self.digits)

    def all_words(self) -> frozenset[str]:
        """Every word of the split, of all kinds."""
        return frozenset(self.names + self.functions + self.texts + self.copies + self.suffixes + self.letters)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_TRAIN_COPIES = _words(
    "name value size path data index key line text start count item limit number result user title length state mode "
    "level first left low node owner file field parent"
)

VOCABULARY = {
    "train": Vocabulary(
        names=_TRAIN_COPIES
        + _words("items values names lines rows nodes page book table record part seen found done ready words users")
        + _words("otter badger heron walrus maple tulip acorn pebble meadow canyon lantern saddle kettle quilt anvil")
        + _words("trout salmon lizard beetle spider pony sheep donkey clover thistle cabin tunnel ladder barrel"),
        functions=_words("get make build find check show send update parse create move clean start_run add_item")
        + _words("sew paddle whistle polish gallop scrub wander chew hum juggle sneeze plow"),
        texts=_words(
            "hello world open the door is not my cat a dog was here all good day one two new car big tree no more time "
            "old house red box"
        )
        + _words("foggy sunny chilly sleepy clumsy gentle sour crispy bumpy dizzy fluffy purple scarlet turnip onion")
        + _words("pumpkin ribbon blanket cushion barley honey spinach cobbler sailor miner tailor baker dirty pretty")
        + _words("twenty forest almost winter garlands hollow yellow tomorrow puddle saddle apple truth depths month")
        + _words("quick thick clock rough laugh bridge cottage luggage orange dance prince juice parade shade glove")
        + _words("twelve olive noise cheese breeze maze puzzle basket rocket planet carpets insects birds")
        + _words("bushes matches lunches kitchen oven melon dragon lemon ocean captain curtain dream steam gleam")
        + _words("broom bloom film swarm rhythm island husband beyond blind pound guard hazard cupboard sword mild")
        + _words("folding sliding evening wishing running playful graceful careful novel funnel camel pencil")
        + _words("signal royal metal fossil sandal kangaroo potato piano banana zebra koala taxi spaghetti emu menu"),
        copies=_TRAIN_COPIES,
        suffixes=_words("name id list path size data"),
        letters=_words("a b c e i k n p s x"),
        digits=(0, 1, 2, 3, 4, 5),
    ),
    "validation": Vocabulary(
        names=_words(
            "window letter engine camera market paper river total code label group format entry sample channel engines"
        )
        + _words("lynx bison gopher magpie birch poppy walnut boulder valley lagoon candle wagon teapot carpet hammer"),
        functions=_words("draw fetch apply remove collect filter test merge")
        + _words("dig bathe giggle hurl swim wiggle knead"),
        texts=_words("this water street some morning over music from warm horse very under please stop")
        + _words("misty cloudy breezy grumpy nervous brave bitter creamy lumpy tired woolly crimson carrot garlic")
        + _words("sixty city beauty hurry story cherry lily belly family narrow shallow elbow bottle")
        + _words("middle ripple tooth cloth north earth chick duck sock cough tough fridge village sausage fence")
        + _words("spice voice blade spade stove rose promise freeze fizz jacket ticket bucket violet walnuts clouds")
        + _words("dishes torches chicken garden ribs pigeon season human fountain bargain cream stream team room plum")
        + _words("storm album sand thousand ground wild child board shield lizards falling singing helpful cheerful"),
        copies=_words("total code label end weight depth group format entry rate active kind type"),
        suffixes=_words("code type group format"),
        letters=_words("d g m t y"),
        digits=(6, 7),
    ),
    "heldout": Vocabulary(
        names=_words(
            "finch moss moth mule raft raven silk stork vine wool reef goose frost pearl barn fern hawk ivy oak cedar"
        ),
        functions=_words("knit grind boil weep yawn yell snore hike mow lick"),
        texts=_words(
            "calm dusty windy rainy gloomy humble hungry merry rusty salty lonely jolly muddy witty velvet willow"
        ),
        copies=_words(
            "score color width height price speed right last high step age year message buffer position address pattern"
        ),
        suffixes=_words("width right last message"),
        letters=_words("h j q u v z"),
        digits=(8, 9),
    ),
}


def heldout_words() -> frozenset[str]:
    """Reserved words: free names, functions and texts of the held-out split. Corpora leave out documents with any.

    Words that tasks ask the model to copy are not among them: a name that was never seen cannot be copied.
    """
    words = VOCABULARY["heldout"]
    return frozenset(words.names + words.functions + words.texts)


_HELDOUT = frozenset(word.encode() for word in heldout_words())
_LOWER_LETTERS = bytes(
    ord(chr(byte).lower()) if chr(byte).isascii() and chr(byte).isalpha() else 32 for byte in range(256)
)


def has_heldout_word(document: bytes) -> bool:
    """Whether a document has a reserved word, in any case, standing alone or between underscores or digits.

    Every held-out sample of the variants main and shifted has one (for template families see tasks.made_up), so
    documents without them contain none of these. Fast enough for a corpus.
    """
    return not _HELDOUT.isdisjoint(letter_runs(document))


def letter_runs(document: bytes) -> list[bytes]:
    """A document's runs of ASCII letters, in small letters."""
    return document.translate(_LOWER_LETTERS).split()
