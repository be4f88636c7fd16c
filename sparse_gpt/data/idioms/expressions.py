"""Expressions: messages, numbers, conditions, list and dict displays, lambdas."""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.writer import Writer

COMPARISONS = ("<", "<", ">", ">", "<=", ">=", "!=")
OPERATORS = ("+", "+", "+", "-", "-", "*", "*", "//", "%")


def phrase(w: Writer) -> str:
    """A message of one to six words."""
    pick = w.pick
    return " ".join([pick(group) for group in pick(words.PHRASES)])


def message(w: Writer) -> str:
    """A quoted message; either quotation mark, drawn anew for every string."""
    quote = w.quote()
    return f"{quote}{phrase(w)}{quote}"


def word(w: Writer) -> str:
    """A quoted single word."""
    quote = w.quote()
    return f"{quote}{w.pick(words.THINGS if w.draw() & 1 else words.QUALITIES)}{quote}"


def formatted(w: Writer, names: list[str]) -> str:
    """An f-string that shows one or two of the names."""
    quote = w.quote()
    name = w.pick(names)
    form = w.below(6)
    if form == 0:
        inner = f"{w.pick(words.LABELS)}: {{{name}}}"
    elif form == 1:
        inner = f"{phrase(w)} {{{name}}} {w.pick(words.STATES)}"
    elif form == 2:
        inner = f"{w.pick(words.LABELS)} {{{name}}} {w.pick(words.LINKS)} {{{w.pick(names)}}}"
    elif form == 3:
        inner = f"{{{name}}} {w.pick(words.JOINERS)} {w.pick(words.STATES)}"
    else:
        inner = f"{phrase(w)} {{{name}}}"
    return f"f{quote}{inner}{quote}"


def literal(w: Writer) -> int:
    """A number as written in a program: mostly one digit."""
    return w.below(10) if w.draw() < 52000 else w.below(10) * 10 + 10


def value(w: Writer) -> str:
    """A number: a literal, a name in scope, or a short sum."""
    numbers = w.scope.numbers
    form = w.below(8)
    if form < 3 or not numbers:
        return str(literal(w))
    if form < 5:
        return w.pick(numbers)
    if form < 7:
        return f"{w.pick(numbers)} {w.pick(OPERATORS)} {w.below(9) + 1}"
    return f"{w.pick(numbers)} {w.pick(OPERATORS[:7])} {w.pick(numbers)}"


def condition(w: Writer, pad: str) -> str:
    """A truth expression. May first write the line that binds the name it needs."""
    form = w.below(16)
    if form < 5:
        return f"{w.number(pad)} {w.pick(COMPARISONS)} {literal(w)}"
    if form < 8:
        return f"{w.number(pad)} == {literal(w)}"
    if form == 8:
        return f"{w.text(pad)} == {word(w)}"
    if form < 11:
        return f"{w.flag(pad)} == {w.pick(('True', 'False'))}"
    if form == 11:
        return w.flag(pad)
    if form == 12:
        return f"not {w.flag(pad)}"
    if form == 13:
        return f"{w.number(pad)} % {w.below(4) + 2} == 0"
    if form == 14:
        return f"{w.number(pad)} {w.pick(COMPARISONS)} {w.number(pad)}"
    return f"{w.number(pad)} > {w.below(10)} {w.pick(('and', 'or'))} {w.number(pad)} < {literal(w)}"


def flat_list(w: Writer, numbers: bool) -> str:
    """A list of one to six numbers, or of one to five words."""
    if numbers:
        return "[" + ", ".join([str(literal(w)) for _ in range(w.below(6) + 1)]) + "]"
    quote = w.quote()
    pool = words.THINGS if w.draw() & 1 else words.QUALITIES
    return "[" + ", ".join([f"{quote}{w.pick(pool)}{quote}" for _ in range(w.below(5) + 1)]) + "]"


def nested_list(w: Writer) -> str:
    """A list with lists in it: rows, a row at either end, or (rarely) three levels."""
    form = w.below(10)
    numbers = w.chance(70)
    if form < 6:
        return "[" + ", ".join([flat_list(w, numbers) for _ in range(w.below(3) + 1)]) + "]"
    row = flat_list(w, numbers)
    rest = flat_list(w, numbers)[1:-1]
    if form == 6:
        return f"[{rest}, {row}]"
    if form < 9:
        return f"[{row}, {rest}]"
    return f"[[{row}, {flat_list(w, numbers)}]]"


def dict_display(w: Writer) -> str:
    """A dict of one to four words, with numbers, words or lists as values, on one line."""
    form = w.below(8)
    quote = w.quote()
    pool = words.THINGS if w.draw() & 1 else words.LABELS
    keys = [f"{quote}{w.pick(pool)}{quote}" for _ in range(w.below(4) + 1)]
    if form < 4:
        return "{" + ", ".join([f"{key}: {literal(w)}" for key in keys]) + "}"
    if form < 6:
        return "{" + ", ".join([f"{key}: {quote}{w.pick(words.QUALITIES)}{quote}" for key in keys]) + "}"
    if form == 6:
        return "{" + ", ".join([f"{key}: {flat_list(w, True)}" for key in keys[:2]]) + "}"
    return "{" + ", ".join([f"{literal(w)}: {key}" for key in keys]) + "}"


def lambda_expression(w: Writer) -> str:
    """A lambda of one parameter (seldom two), named like anything else."""
    form = w.below(7)
    pool = words.LETTERS if w.chance(50) else words.OBJECTS
    name = w.pick(pool)
    if form < 3:
        return f"lambda {name}: {name} {w.pick(OPERATORS)} {w.below(9) + 1}"
    if form == 3:
        return f"lambda {name}: {name}[{w.below(3)}]"
    if form == 4:
        return f"lambda {name}: len({name})"
    if form == 5:
        return f"lambda {name}: {name} {w.pick(COMPARISONS)} {literal(w)}"
    other = w.pick([option for option in ("a", "b", "x", "y") if option != name])
    return f"lambda {name}, {other}: {name} {w.pick(OPERATORS[:7])} {other}"
