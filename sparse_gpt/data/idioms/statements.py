"""Statements of one line (or a tight pair of lines), each on names that are in scope."""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.expressions import (
    condition,
    dict_display,
    flat_list,
    formatted,
    lambda_expression,
    literal,
    message,
    nested_list,
    value,
    word,
)
from sparse_gpt.data.idioms.writer import Writer

BOOLEANS = ("True", "False")
ENDS = ('""', "''", '" "', "' '")


def print_message(w: Writer, pad: str) -> None:
    w.lines.append(f"{pad}print({message(w)})\n")


def print_value(w: Writer, pad: str) -> None:
    form = w.below(4)
    name = w.number(pad) if w.draw() & 1 else w.text(pad)
    if form < 2:
        w.lines.append(f"{pad}print({name})\n")
    elif form == 2:
        quote = w.quote()
        w.lines.append(f"{pad}print({quote}{w.pick(words.LABELS)}{quote}, {name})\n")
    else:
        w.lines.append(f"{pad}print({name}, end={w.pick(ENDS)})\n")


def print_formatted(w: Writer, pad: str) -> None:
    scope = w.scope
    names = scope.numbers + scope.texts or [w.number(pad)]
    w.lines.append(f"{pad}print({formatted(w, names)})\n")


def assign_number(w: Writer, pad: str) -> None:
    scope = w.scope
    if scope.numbers and (len(pad) > 4 or w.chance(35)):
        w.lines.append(f"{pad}{w.pick(scope.numbers)} = {value(w)}\n")
        return
    name = w.fresh_value()
    w.lines.append(f"{pad}{name} = {value(w)}\n")
    scope.numbers.append(name)


def change_number(w: Writer, pad: str) -> None:
    name = w.number(pad)
    form = w.below(6)
    if form < 4:
        w.lines.append(f"{pad}{name} += {w.pick(('1', '1', '2', str(literal(w))))}\n")
    else:
        w.lines.append(f"{pad}{name} {'-=' if form == 4 else '*='} {w.below(9) + 1}\n")


def assign_text(w: Writer, pad: str) -> None:
    scope = w.scope
    if scope.texts and (len(pad) > 4 or w.chance(30)):
        name = w.pick(scope.texts)
    else:
        name = w.fresh(words.TEXT_NAMES)
        scope.texts.append(name)
    form = w.below(5)
    if form < 2:
        right = word(w)
    elif form < 4:
        right = message(w)
    else:
        right = formatted(w, scope.numbers or [name]) if scope.numbers else word(w)
    w.lines.append(f"{pad}{name} = {right}\n")


def assign_flag(w: Writer, pad: str) -> None:
    scope = w.scope
    if scope.flags and (len(pad) > 4 or w.chance(40)):
        name = w.pick(scope.flags)
    else:
        name = w.fresh(words.FLAG_NAMES if w.chance(70) else words.LETTERS)
        scope.flags.append(name)
    w.lines.append(f"{pad}{name} = {w.pick(BOOLEANS)}\n")


def assign_ternary(w: Writer, pad: str) -> None:
    test = condition(w, pad)
    scope = w.scope
    form = w.below(4)
    if form < 2:
        name = w.pick(scope.numbers) if scope.numbers and w.draw() & 1 else w.fresh_value()
        w.lines.append(f"{pad}{name} = {value(w)} if {test} else {value(w)}\n")
        scope.numbers.append(name)
    elif form == 2:
        name = w.fresh(words.TEXT_NAMES)
        w.lines.append(f"{pad}{name} = {word(w)} if {test} else {word(w)}\n")
        scope.texts.append(name)
    else:
        w.lines.append(f"{pad}print({word(w)} if {test} else {word(w)})\n")


def assign_flat(w: Writer, pad: str) -> None:
    numbers = w.chance(60)
    name = w.fresh_list(numbers)
    w.lines.append(f"{pad}{name} = {flat_list(w, numbers)}\n")


def assign_nested(w: Writer, pad: str) -> None:
    name = w.fresh(words.GRID_NAMES if w.draw() & 1 else words.ACCUMULATOR_NAMES)
    w.lines.append(f"{pad}{name} = {nested_list(w)}\n")


def extend_list(w: Writer, pad: str) -> None:
    """Uses of list displays inside calls and sums."""
    form = w.below(5)
    if form == 0:
        name = w.fresh_value()
        w.scope.numbers.append(name)
        w.lines.append(f"{pad}{name} = {w.pick(('sum', 'max', 'min', 'len'))}({flat_list(w, True)})\n")
    elif form == 1:
        w.lines.append(f"{pad}print({flat_list(w, True) if w.draw() & 1 else nested_list(w)})\n")
    else:
        numbers = w.chance(50)
        lists = w.scope.number_lists if numbers else w.scope.text_lists
        name = w.pick(lists)[1] if lists else define_list(w, pad, numbers)
        item = str(literal(w)) if numbers else word(w)
        if form == 2:
            w.lines.append(f"{pad}{name} = {name} + {flat_list(w, numbers)}\n")
        else:
            w.lines.append(f"{pad}{name}.append({item})\n")


def define_list(w: Writer, pad: str, numbers: bool) -> str:
    """Binds a new flat list on a line of its own and returns its name."""
    name = w.fresh_list(numbers)
    w.lines.append(f"{pad}{name} = {flat_list(w, numbers)}\n")
    return name


def any_list(w: Writer, pad: str) -> tuple[str, str, bool]:
    """(name of a member, name of the list, members are numbers) of a list in scope."""
    scope = w.scope
    numbers = w.chance(50)
    lists = scope.number_lists if numbers else scope.text_lists
    if not lists:
        define_list(w, pad, numbers)
    member, name = w.pick(lists)
    if member in scope.numbers or member in scope.texts:
        # The variable of a loop around this one, or any other value: leave it alone.
        member = w.fresh(words.LETTERS)
    return member, name, numbers


def assign_item(w: Writer, pad: str) -> None:
    """A member of a list, by position, possibly a nested one."""
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
    name = w.fresh(words.DICT_NAMES if w.chance(60) else words.ACCUMULATOR_NAMES)
    w.lines.append(f"{pad}{name} = {dict_display(w)}\n")
    w.scope.dicts.append(name)


def set_key(w: Writer, pad: str) -> None:
    if not w.scope.dicts:
        assign_dict(w, pad)
    name = w.pick(w.scope.dicts)
    if w.chance(70):
        w.lines.append(f"{pad}{name}[{word(w)}] = {value(w)}\n")
    else:
        w.lines.append(f"{pad}print({name}[{word(w)}])\n")


def comprehension(w: Writer, pad: str) -> None:
    member, name, numbers = any_list(w, pad)
    target = w.fresh(words.ACCUMULATOR_NAMES)
    form = w.below(6)
    if form == 0:
        right = f"{{{member}: len({name}) for {member} in {name}}}"
    elif form == 1:
        right = f"[{member} for {member} in {name} if {member} != {literal(w) if numbers else word(w)}]"
    elif form == 2:
        number = w.pick(("i", "n", "x", "k"))
        right = f"[{number} * {w.below(9) + 1} for {number} in range({literal(w)})]"
    elif numbers:
        right = f"[{member} {w.pick(('*', '+', '-'))} {w.below(9) + 1} for {member} in {name}]"
    else:
        right = f"[{member}.{w.pick(('upper()', 'lower()', 'strip()'))} for {member} in {name}]"
    w.lines.append(f"{pad}{target} = {right}\n")


def use_lambda(w: Writer, pad: str) -> None:
    form = w.below(4)
    if form < 2:
        _, name = w.pick(words.TEXT_LISTS)
        verb = w.fresh(words.VERBS if form else words.LETTERS)
        w.lines.append(f"{pad}{verb} = {lambda_expression(w)}\n")
        return
    _, name, _ = any_list(w, pad)
    parameter = w.pick(words.LETTERS if w.draw() & 1 else words.OBJECTS)
    if form == 2:
        w.lines.append(f"{pad}{name}.sort(key=lambda {parameter}: {w.pick(('-', 'len', 'str'))}({parameter}))\n")
    else:
        call = w.pick(("sorted", "max", "min"))
        target = w.fresh(words.ACCUMULATOR_NAMES)
        w.lines.append(
            f"{pad}{target} = {call}({name}, key=lambda {parameter}: {w.pick(('-', 'len', ''))}({parameter}))\n"
        )


def swap(w: Writer, pad: str) -> None:
    """Exchange two numbers; mostly right after both were bound."""
    scope = w.scope
    if len(scope.numbers) > 1 and w.chance(50):
        a, b = w.pick(scope.numbers), w.pick(scope.numbers)
    else:
        a = b = ""
    if a == b:
        a, b = w.fresh_value(), w.fresh_value()
        w.lines.append(f"{pad}{a} = {literal(w)}\n{pad}{b} = {literal(w)}\n")
        scope.numbers += (a, b)
    w.lines.append(f"{pad}{a}, {b} = {b}, {a}\n")


def call_function(w: Writer, pad: str) -> None:
    """Call a function of this program, or print something where there is none."""
    if not w.functions:
        print_message(w, pad)
        return
    name, count = w.pick(w.functions)
    arguments = ", ".join([value(w) if w.chance(60) else word(w) for _ in range(count)])
    if w.chance(50):
        w.lines.append(f"{pad}{name}({arguments})\n")
    elif w.chance(50):
        w.lines.append(f"{pad}print({name}({arguments}))\n")
    else:
        target = w.fresh_value()
        w.lines.append(f"{pad}{target} = {name}({arguments})\n")
        w.scope.numbers.append(target)


SIMPLE = (
    (print_message,) * 7
    + (print_value,) * 4
    + (print_formatted,) * 6
    + (assign_number,) * 6
    + (change_number,) * 3
    + (assign_text,) * 3
    + (assign_flag,) * 4
    + (assign_ternary,) * 4
    + (assign_flat,) * 4
    + (assign_nested,) * 4
    + (extend_list,) * 3
    + (assign_item,) * 2
    + (assign_dict,) * 3
    + (set_key,) * 2
    + (comprehension,) * 2
    + (use_lambda,) * 4
    + (swap,) * 3
    + (call_function,) * 3
)
"""Statements by weight, for any place."""

SMALL = (
    (print_message,) * 6
    + (print_value,) * 4
    + (print_formatted,) * 5
    + (assign_number,) * 3
    + (change_number,) * 5
    + (assign_text,) * 1
    + (assign_flag,) * 3
    + (assign_ternary,) * 1
    + (extend_list,) * 2
    + (set_key,) * 1
    + (swap,) * 1
    + (call_function,) * 2
)
"""Statements by weight, for the inside of blocks."""


def simple(w: Writer, pad: str) -> None:
    """One statement for the top of a function or module."""
    w.pick(SIMPLE)(w, pad)


def small(w: Writer, pad: str) -> None:
    """One statement for the inside of a block."""
    w.pick(SMALL)(w, pad)
