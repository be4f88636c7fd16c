"""Statements on lists and dicts: displays, members, comprehensions."""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.expressions import dict_display, flat_list, literal, nested_list, value, word
from sparse_gpt.data.idioms.writer import Writer


def define_list(w: Writer, pad: str, numbers: bool) -> str:
    """Binds a new flat list on a line of its own and returns its name."""
    name = w.fresh_list(numbers)
    w.lines.append(f"{pad}{name} = {flat_list(w, numbers)}\n")
    return name


def any_list(w: Writer, pad: str, numbers: bool | None = None) -> tuple[str, str, bool]:
    """(name for a member, name of the list, members are numbers) of a list in scope, of either kind unless given."""
    scope = w.scope
    if numbers is None:
        numbers = w.chance(50)
    lists = scope.number_lists if numbers else scope.text_lists
    if not lists:
        define_list(w, pad, numbers)
    member, name = w.pick(lists)
    if member in scope.numbers or member in scope.texts:
        # The variable of a loop around this one, or any other value: leave it alone.
        member = w.fresh(words.LETTERS)
    return member, name, numbers


def loop_over(w: Writer, pad: str, member: str, source: str) -> None:
    """The first line of a loop over a list, with or without the position."""
    if w.chance(70):
        w.lines.append(f"{pad}for {member} in {source}:\n")
    else:
        position = w.pick([position for position in words.POSITIONS if position != member])
        w.lines.append(f"{pad}for {position}, {member} in enumerate({source}):\n")


def assign_flat(w: Writer, pad: str) -> None:
    define_list(w, pad, w.chance(60))


def assign_nested(w: Writer, pad: str) -> None:
    name = w.fresh_name(words.GRID_NAMES if w.draw() & 1 else words.ACCUMULATOR_NAMES)
    w.lines.append(f"{pad}{name} = {nested_list(w)}\n")


def use_display(w: Writer, pad: str) -> None:
    """A list display as an argument, flat or nested."""
    form = w.below(4)
    if form == 0:
        name = w.fresh_value()
        w.scope.numbers.append(name)
        w.lines.append(f"{pad}{name} = {w.pick(('sum', 'max', 'min', 'len'))}({flat_list(w, True)})\n")
    elif form == 1:
        w.lines.append(f"{pad}print({flat_list(w, True) if w.draw() & 1 else nested_list(w)})\n")
    else:
        _, name, numbers = any_list(w, pad)
        if form == 2:
            more = nested_list(w) if w.chance(40) else flat_list(w, numbers)
            w.lines.append(f"{pad}{name} {w.pick(('+=', f'= {name} +'))} {more}\n")
        else:
            w.lines.append(f"{pad}{name}.append({nested_list(w) if w.chance(30) else flat_list(w, numbers)})\n")


def append_item(w: Writer, pad: str) -> None:
    _, name, numbers = any_list(w, pad)
    w.lines.append(f"{pad}{name}.append({value(w) if numbers else word(w)})\n")


def use_item(w: Writer, pad: str) -> None:
    """A member of a list by position, possibly a position that is itself a member."""
    member, name, numbers = any_list(w, pad)
    scope = w.scope
    form = w.below(4)
    if form == 0 and scope.numbers:
        position = w.pick(scope.numbers)
    elif form == 1 and scope.number_lists:
        position = f"{w.pick(scope.number_lists)[1]}[{w.below(3)}]"
    else:
        position = w.pick(("0", "0", "1", "2", "-1"))
    if w.draw() & 1:
        target = w.fresh((member, "first", "last", "item", "value") if numbers else (member, "first", "last", "word"))
        (scope.numbers if numbers else scope.texts).append(target)
        w.lines.append(f"{pad}{target} = {name}[{position}]\n")
    else:
        w.lines.append(f"{pad}print({name}[{position}])\n")


def assign_dict(w: Writer, pad: str) -> None:
    name = w.fresh_name(words.DICT_NAMES if w.chance(60) else words.ACCUMULATOR_NAMES)
    w.lines.append(f"{pad}{name} = {dict_display(w)}\n")
    w.scope.dicts.append(name)


def any_dict(w: Writer, pad: str) -> str:
    """The name of a dict in scope."""
    if not w.scope.dicts:
        assign_dict(w, pad)
    return w.pick(w.scope.dicts)


def use_key(w: Writer, pad: str) -> None:
    name = any_dict(w, pad)
    if w.chance(70):
        w.lines.append(f"{pad}{name}[{word(w)}] = {value(w)}\n")
    else:
        w.lines.append(f"{pad}print({name}[{word(w)}])\n")


def comprehension(w: Writer, pad: str) -> None:
    member, name, numbers = any_list(w, pad)
    target = w.fresh_name(words.ACCUMULATOR_NAMES)
    form = w.below(7)
    if form == 0:
        right = f"{{{member}: len({name}) for {member} in {name}}}"
    elif form == 1:
        right = f"[{member} for {member} in {name} if {member} != {literal(w) if numbers else word(w)}]"
    elif form == 2:
        number = w.pick(("i", "n", "x", "k"))
        right = f"[{number} * {w.below(9) + 1} for {number} in range({literal(w)})]"
    elif form == 3:
        right = f"[[{member}, {w.below(10)}] for {member} in {name}]"
    elif numbers:
        right = f"[{member} {w.pick(('*', '+', '-'))} {w.below(9) + 1} for {member} in {name}]"
    else:
        right = f"[{member}.{w.pick(('upper()', 'lower()', 'strip()'))} for {member} in {name}]"
    w.lines.append(f"{pad}{target} = {right}\n")
