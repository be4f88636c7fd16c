"""Expressions: messages, numbers, conditions, list and dict displays, lambdas."""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.writer import Writer

COMPARISONS = ("<", "<", ">", ">", "<=", ">=", "!=")
BOOLEANS = ("True", "False")
BOTH = ("and", "or")
OPERATORS = ("+", "+", "+", "-", "-", "*", "*", "//", "%")


def phrase(w: Writer) -> str:
    """A message of one to six words: mostly a sentence, sometimes unconnected words."""
    pick = w.pick
    if w.draw() < 9000:
        return " ".join([pick(pick(words.MIXED)) for _ in range(w.below(4) + 1)])
    return " ".join([pick(group) for group in pick(words.PHRASES)])


def message(w: Writer) -> str:
    """A quoted message; either quotation mark, drawn anew for every string."""
    quote = w.quote()
    return f"{quote}{phrase(w)}{quote}"


def word(w: Writer) -> str:
    """A quoted single word."""
    quote = w.quote()
    form = w.below(10)
    shown = w.rare() if form < 3 else w.pick(words.THINGS if form < 7 else words.QUALITIES)
    return f"{quote}{shown}{quote}"


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
    draw = w.draw()
    if draw < 42000:
        return w.below(10)
    return w.below(90) + 10 if draw < 62000 else w.below(10) * 100 + 100


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


def attribute(w: Writer) -> str:
    """An attribute of an object in scope, which must have one."""
    return f"{w.pick(w.scope.objects)}.{w.pick(words.NUMBER_NAMES if w.draw() & 1 else words.TEXT_NAMES)}"


def comparison(w: Writer, name: str) -> str:
    """A test of one number against a literal."""
    form = w.below(8)
    if form < 4:
        return f"{name} {w.pick(COMPARISONS)} {literal(w)}"
    if form < 7:
        return f"{name} == {literal(w)}"
    return f"{name} % {w.below(4) + 2} == 0"


def condition(w: Writer, pad: str) -> str:
    """A truth expression. May first write the line that binds the name it needs."""
    form = w.below(21)
    scope = w.scope
    if form < 5:
        return comparison(w, w.number(pad))
    if form < 10:
        return f"{w.flag(pad)} == {w.pick(BOOLEANS)}"
    if form == 10:
        return w.flag(pad)
    if form == 11:
        return f"not {w.flag(pad)}"
    if form == 12:
        return f"{w.text(pad)} == {word(w)}"
    if form == 13:
        return f"{w.number(pad)} {w.pick(COMPARISONS)} {w.number(pad)}"
    if form == 14:
        name = w.number(pad)
        return f"{name} > {w.below(10)} {w.pick(BOTH)} {name} < {literal(w)}"
    if form == 15:
        return f"{w.pick(('', 'not '))}{w.flag(pad)} {w.pick(BOTH)} {comparison(w, w.number(pad))}"
    if form == 16:
        return f"{w.pick(('', 'not '))}{w.flag(pad)} {w.pick(BOTH)} {w.flag(pad)} == {w.pick(BOOLEANS)}"
    if form in (17, 20):
        name = w.number(pad)
        if not scope.number_lists:
            listed = w.fresh_list(True)
            w.lines.append(f"{pad}{listed} = {flat_list(w, True)}\n")
        return f"{name} {w.pick(('in', 'in', 'not in'))} {w.pick(scope.number_lists)[1]}"
    if form < 19 and scope.objects:
        right = w.pick(BOOLEANS) if form == 18 else str(literal(w)) if w.draw() & 1 else word(w)
        return f"{attribute(w)} == {right}"
    lists = scope.text_lists or scope.number_lists
    return f"len({w.pick(lists)[1]}) {w.pick(COMPARISONS)} {w.below(10)}" if lists else comparison(w, w.number(pad))


def flat_list(w: Writer, numbers: bool) -> str:
    """A list of one to six numbers, or of one to five words; sometimes of names in scope."""
    names = w.scope.numbers if numbers else w.scope.texts
    if names and w.draw() < 12000:
        return "[" + ", ".join([w.pick(names) for _ in range(w.below(3) + 1)]) + "]"
    if numbers:
        return "[" + ", ".join([str(literal(w)) for _ in range(w.below(6) + 1)]) + "]"
    quote = w.quote()
    pool = w.pick(words.MEMBERS)
    items = [f"{quote}{w.pick(pool)}{quote}" for _ in range(w.below(5) + 1)]
    if w.draw() < 8000:
        items.insert(w.below(len(items) + 1), w.pick(names) if names else str(literal(w)))
    return f"[{', '.join(items)}]"


def nested_list(w: Writer) -> str:
    """A list of one to four rows, of rows and plain members in any order, or (rarely) of three levels."""
    form = w.below(12)
    numbers = w.chance(70)
    rows = [flat_list(w, numbers) for _ in range(w.pick((1, 1, 2, 2, 3, 4)))]
    if form > 5:
        # Some rows lose their brackets, but never all.
        kept = w.below(len(rows))
        rows = [row if place == kept or w.draw() & 1 else row[1:-1] for place, row in enumerate(rows)]
        if len(rows) == 1:
            plain = flat_list(w, numbers)[1:-1]
            rows = [*rows, plain] if w.draw() & 1 else [plain, *rows]
    text = f"[{', '.join(rows)}]"
    return f"[{text}]" if form == 0 else text


def dict_display(w: Writer) -> str:
    """A dict of one to four words, with numbers, words or lists as values, on one line."""
    form = w.below(8)
    quote = w.quote()
    pool = w.pick(words.MEMBERS)
    keys = list(dict.fromkeys([f"{quote}{w.pick(pool)}{quote}" for _ in range(w.below(4) + 1)]))
    if form < 4:
        numbers = w.scope.numbers
        if numbers and form == 0:
            return "{" + ", ".join([f"{key}: {w.pick(numbers)}" for key in keys]) + "}"
        return "{" + ", ".join([f"{key}: {literal(w)}" for key in keys]) + "}"
    if form < 6:
        return "{" + ", ".join([f"{key}: {quote}{w.pick(words.QUALITIES)}{quote}" for key in keys]) + "}"
    if form == 6:
        return "{" + ", ".join([f"{key}: {flat_list(w, True)}" for key in keys[:2]]) + "}"
    return "{" + ", ".join([f"{number}: {key}" for number, key in enumerate(keys, w.below(8))]) + "}"


def lambda_parameter(w: Writer) -> str:
    """A letter or a word, which no other part of the program speaks of."""
    if w.draw() & 1:
        return w.pick(words.LETTERS)
    return w.pick(words.OBJECTS) if w.chance(70) else w.rare()


def lambda_expression(w: Writer) -> str:
    """A lambda of one parameter (seldom two), named like anything else."""
    form = w.below(7)
    name = lambda_parameter(w)
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


def spoken(w: Writer) -> str:
    """What is handed to a function that shows something: a message, a message and a value, or an f-string."""
    names = w.scope.numbers + w.scope.texts
    form = w.below(8)
    if form < 4 or not names:
        return message(w)
    return f"{message(w)}, {w.pick(names)}" if form < 6 else formatted(w, names)


def display(w: Writer) -> str:
    """A list or a dict, of any shape."""
    form = w.below(4)
    if form == 0:
        return flat_list(w, w.chance(50))
    return nested_list(w) if form == 1 else dict_display(w)
