"""The vocabulary of the idiom generator: a few hundred words, so that a small tokenizer holds most of them whole.

Names are grouped by the kind of value they usually hold. Where a behaviour must not be read off the name (a set or a
string, a lambda's parameter or a function), both sides draw from the same group.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LETTERS = tuple("abcdeghkmnpqrstuvxyz")
"""One-letter names; `f` is kept for files, `i` and `j` for positions."""

NUMBER_NAMES = _words(
    "count total size index score price age width height level limit step number value length weight speed "
    "start end left right first last low high points amount depth day year rate cost"
)
TEXT_NAMES = _words("name title text label word color message city line key kind code owner email line path")
FLAG_NAMES = _words("done ready found valid active empty running visible changed ok open_now finished enabled")
ACCUMULATOR_NAMES = _words(
    "current current current result seen found output names words letters values items parts used group buffer "
    "keys lines colors tags unique collected"
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
    "get set add find make show count check load save read write open close run start stop update clean build "
    "print move send sort merge split join parse create remove"
)
OBJECTS = _words(
    "name names item items value values text word words line lines file data list table user score price key color "
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
    (THINGS, LINKS, THINGS),
)
"""Word classes of a short message, in order."""

INPUT_NAMES = _words("input_file input_path in_file in_path infile source source_file source_path read_path")
OUTPUT_NAMES = _words("output_file output_path out_file out_path outfile target target_file target_path save_path")
INPUT_STEMS = ("input", "source", "in", "input_data", "input_text", "source_list")
OUTPUT_STEMS = ("output", "target", "out", "output_data", "output_text", "result_list")
NEUTRAL_STEMS = _words("data notes words names scores users list table log report")
SUFFIXES = (".txt", ".txt", ".csv", ".json", ".log")
FILE_NAMES = ("f", "f", "f", "file", "handle", "g")
READ_FUNCTIONS = _words("read_file load_file read_lines load_data read_text load_words read_names load_list")
WRITE_FUNCTIONS = _words("write_file save_file write_lines save_data write_text save_words write_names save_list")
