"""The vocabulary of the idiom generator: some hundred common words, which a small tokenizer holds whole; a long tail.

Names are grouped by the kind of value they usually hold. Where a behavior must not be read off the name (a set or a
string, a lambda's parameter or a function), both sides draw from the same group.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LETTERS = tuple("abcdeghkmnpqrstuvxyz")
"""One-letter names; `f` is kept for files, `i` and `j` for positions."""

NUMBER_NAMES = _words(
    "count total size index score price age width height level limit step number value length weight speed "
    "start end left right first last low high points amount depth day year rate cost position data result"
)
TEXT_NAMES = _words(
    "name title text label word color message city line key kind code owner email path state mode field format "
    "entry type group address pattern buffer"
)
FLAG_NAMES = _words("done ready found valid active empty running visible changed ok open_now finished enabled")
ACCUMULATOR_NAMES = _words(
    "current current result seen found output names words letters values items parts "
    "used group buffer keys lines colors tags unique collected"
)
"""Names of sets, strings and lists that a loop fills: drawn alike for all of them, so the name tells nothing."""

NUMBER_LISTS = (
    ("value", "values"),
    ("number", "numbers"),
    ("score", "scores"),
    ("price", "prices"),
    ("point", "points"),
    ("size", "sizes"),
    ("x", "xs"),
    ("n", "numbers"),
    ("v", "values"),
    ("step", "steps"),
    ("age", "ages"),
    ("item", "items"),
)
TEXT_LISTS = (
    ("name", "names"),
    ("word", "words"),
    ("color", "colors"),
    ("line", "lines"),
    ("key", "keys"),
    ("user", "users"),
    ("city", "cities"),
    ("letter", "letters"),
    ("book", "books"),
    ("animal", "animals"),
    ("item", "items"),
    ("tag", "tags"),
    ("part", "parts"),
)
GRID_NAMES = _words("rows grid table matrix pairs points board groups cells data blocks")
DICT_NAMES = _words("data prices ages scores counts colors settings options table users config stock points")
POSITIONS = ("i", "i", "i", "j", "index", "n", "k", "step")

VERBS = _words(
    "get put add find make show count check load save read write say close run start stop update clean build "
    "turn move send sort merge split join parse create remove"
)
OBJECTS = _words(
    "name names item items value values text word words line lines file data place table user score price key color "
    "total size number numbers row point page book"
)
CLASS_NAMES = _words(
    "Item User Point Box Book Page Car Dog Cat Player Node Stack Queue Counter Shape Account Order Game Store Team "
    "Shop Robot Timer Reader Writer Task Room Table"
)
ERRORS = ("ValueError", "KeyError", "TypeError", "OSError", "IndexError")

THINGS = _words(
    "cat dog box ball tree house car bird fish book door road river song star boat garden hat cup lamp chair horse "
    "apple pear plum bread milk sugar stone flower"
)
QUALITIES = _words(
    "red blue green small big old new fast slow cold warm dark happy quiet long short white black pink good"
)
STATES = _words("ready done open closed empty full missing lost found here gone late safe broken new")
ACTIONS = _words("open close find move save load start stop check clean build count show take make send")
ARTICLES = ("the", "the", "a", "no", "one", "this", "every", "my")
JOINERS = ("is", "is", "was", "is not")
LINKS = ("and", "and", "or", "but")
GREETINGS = _words("hello welcome goodbye thanks sorry wait yes no")
LABELS = _words("total count name size result score price value sum item line key word user")

RARE = _words(
    "anchor angle arrow artist autumn badge basket battery beach bench bicycle blanket bottle branch brick bridge "
    "brush bucket button cabin cable candle canvas carpet castle chain chalk chapter circle cloud coast coffee "
    "copper corner cotton cousin crown curve desert diamond dinner doctor dragon drawer dream driver drum earth echo "
    "edge empire energy event factor feather fence figure finger flame flight floor forest fork fountain "
    "frame friend fruit future galaxy gate glass globe glove grain grass guest guide hammer harbor harvest heart "
    "helmet hero hotel island jacket jewel journey jungle kettle kitchen ladder lantern lemon lesson library lock "
    "lunch machine magnet marble mask meadow memory metal minute mirror monkey motor mountain museum needle "
    "notebook novel ocean office onion orange orbit oven package palace panel parcel pencil pepper piano "
    "picture pilot pirate planet plant plate pocket poem pond potato powder prince pump puzzle rabbit radio railway "
    "recipe ribbon ring rocket roof saddle sailor salad salt scale school screen seed shadow sheep shelf shell ship "
    "shoe signal silver sister smoke soap spider spoon spring square stage station statue storm story student "
    "summer sunset sword tailor teacher temple thread throne ticket tiger tower town track train trumpet tunnel "
    "turtle umbrella uncle valley vessel village violin wagon wall wheel whistle winter wizard wood yard zebra"
)
"""A long tail of words that are seldom whole tokens, so that behaviors are learned for names of any spelling."""
FIRST_HALVES = _words(
    "after air apple back bare bed bee bell black blood blue bold bone book break bull butter candle clay cob corn cow "
    "cross day dew down dragon drift dust eye fair fire fish flag flax foot fox free gold grand grass green gum "
    "hand hay head heart hill honey horse ice iron kind lamp lime lock mill mist moon night nut over pan pea pepper "
    "pin plum pond quick rain rock rose row run rye sand sea sheep side sky snow spear spring star stone stray sun "
    "swan sweet table thistle thumb thunder tide timber tin tooth under up waist water wax wheat wild wind wolf yard"
)
SECOND_HALVES = _words(
    "bark berry bird block board bone bow box brook burst cake cap cart chest cloth craft crest dale drop edge fall "
    "field fish flake flower fly foot gate glow grass ground guard hatch head hill hive hole horn house keeper knot "
    "lace land leaf light line lock maker mark mate meal mill nail nest path piece pin pipe pit plant port pot print "
    "proof rest ridge root rose run scape set shade shed ship shore side skin smith spark spot spring staff stead stem "
    "step stick stone storm swept thorn tide tip tree wall ward ware wash wave way weed wheel wing wood work worm yard"
)
"""Halves of compound words (`snowgate`): some ten thousand spellings, which a tokenizer cuts in many ways."""
PREFIXES = _words("new old max min user item file last first next my best total page base")
OBJECT_NAMES = _words(
    "user item node parent owner file user item node book player page car team box robot account shop"
)
MEMBERS = (THINGS, QUALITIES, LABELS, RARE)
"""Word classes of list elements and dict keys."""
MIXED = (THINGS, QUALITIES, STATES, ACTIONS, ARTICLES, GREETINGS, RARE, RARE)
"""Word classes of a message without grammar."""

PHRASES = (
    (GREETINGS,),
    (THINGS,),
    (GREETINGS, THINGS),
    (QUALITIES, THINGS),
    (ARTICLES, THINGS),
    (ARTICLES, QUALITIES, THINGS),
    (ACTIONS, ARTICLES, THINGS),
    (ACTIONS, ARTICLES, QUALITIES, THINGS),
    (THINGS, JOINERS, STATES),
    (ARTICLES, THINGS, JOINERS, STATES),
    (ARTICLES, THINGS, JOINERS, QUALITIES, LINKS, QUALITIES),
    (ARTICLES, QUALITIES, THINGS, JOINERS, STATES),
    (QUALITIES, LINKS, QUALITIES, THINGS),
    (ARTICLES, RARE),
    (THINGS, LINKS, THINGS),
)
"""Word classes of a short message, in order."""

INPUT_WORDS = ("input", "input", "in", "source", "source")
OUTPUT_WORDS = ("output", "output", "out", "target", "target")
FILE_PARTS = _words("file file path path name data text list log words lines notes")
"""An input file is called `input_file` or `data_input`; a rare word may stand for the part."""
NEUTRAL_STEMS = _words("data notes words names scores users list table log report")
SUFFIXES = (".txt", ".txt", ".csv", ".json", ".log")
PATH_NAMES = _words("path path name file_name item line url place")
FILE_NAMES = ("f", "f", "f", "file", "handle", "g")
READ_VERBS = ("read", "read", "load", "load", "parse")
WRITE_VERBS = ("write", "write", "save", "save", "store")
