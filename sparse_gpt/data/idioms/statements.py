"""Statements of one line (or a tight pair of lines), each on names that are in scope."""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.containers import (
    any_list,
    append_item,
    assign_dict,
    assign_flat,
    assign_nested,
    comprehension,
    use_display,
    use_item,
    use_key,
)
from sparse_gpt.data.idioms.expressions import (
    BOOLEANS,
    attribute,
    condition,
    display,
    formatted,
    lambda_expression,
    lambda_parameter,
    literal,
    message,
    phrase,
    spoken,
    value,
    word,
)
from sparse_gpt.data.idioms.writer import Writer

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
        shown = message(w) if w.draw() & 1 else f"{quote}{w.pick(words.LABELS)}{w.pick(('', ':'))}{quote}"
        w.lines.append(f"{pad}print({shown}, {name})\n")
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
        name = w.fresh_name(words.TEXT_NAMES)
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
        name = w.fresh_name(words.FLAG_NAMES) if w.chance(70) else w.fresh(words.LETTERS)
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
        name = w.fresh_name(words.TEXT_NAMES)
        w.lines.append(f"{pad}{name} = {word(w)} if {test} else {word(w)}\n")
        scope.texts.append(name)
    else:
        w.lines.append(f"{pad}print({word(w)} if {test} else {word(w)})\n")


def use_lambda(w: Writer, pad: str) -> None:
    form = w.below(6)
    if form < 3:
        name = w.fresh(words.LETTERS) if form == 0 else w.fresh_name(words.VERBS if form == 1 else words.OBJECTS)
        w.lines.append(f"{pad}{name} = {lambda_expression(w)}\n")
        return
    _, name, numbers = any_list(w, pad)
    parameter = lambda_parameter(w)
    key = f"-{parameter}" if numbers and w.draw() & 1 else f"{w.pick(('len', 'str'))}({parameter})"
    if form == 3:
        w.lines.append(f"{pad}{name}.sort(key=lambda {parameter}: {key})\n")
        return
    target = w.fresh_name(words.ACCUMULATOR_NAMES)
    if form == 4:
        right = f"{w.pick(('sorted', 'max', 'min'))}({name}, key=lambda {parameter}: {key})"
    else:
        test = f"{parameter} {w.pick(('>', '<', '=='))} {literal(w)}" if numbers else f"{parameter} != {word(w)}"
        right = f"list({w.pick((f'filter(lambda {parameter}: {test}', f'map(lambda {parameter}: {key}'))}, {name}))"
    w.lines.append(f"{pad}{target} = {right}\n")


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
    name, parameters, required = w.pick(w.functions)
    arguments = [value(w) if w.chance(60) else word(w) for _ in range(required)]
    for parameter in parameters[required:]:
        if w.chance(40):
            arguments.append(f"{parameter}={literal(w) if w.chance(60) else word(w)}")
    call = f"{name}({', '.join(arguments)})"
    form = w.below(4)
    if form < 2:
        w.lines.append(f"{pad}{call}\n")
    elif form == 2:
        w.lines.append(f"{pad}print({call})\n")
    else:
        target = w.fresh_value()
        w.lines.append(f"{pad}{target} = {call}\n")
        w.scope.numbers.append(target)


def tell(w: Writer, pad: str) -> None:
    """A message handed to an imported function or to a method."""
    objects = w.scope.objects
    form = w.below(4)
    if form < 2 or not objects:
        call = f"{w.helper()}({spoken(w) if w.chance(85) else display(w)})"
    else:
        call = f"{w.pick(objects)}.{w.pick(words.VERBS)}({spoken(w)})"
    if form & 1:
        name = w.fresh_name(words.TEXT_NAMES)
        w.lines.append(f"{pad}{name} = {call}\n")
        w.scope.texts.append(name)
    else:
        w.lines.append(f"{pad}{call}\n")


def use_object(w: Writer, pad: str) -> None:
    """An attribute set or read; a number where there is no object."""
    objects = w.scope.objects
    if not objects:
        assign_number(w, pad)
        return
    target = attribute(w)
    form = w.below(8)
    if form < 3:
        right = value(w) if form == 0 else message(w) if form == 1 else w.pick(BOOLEANS)
    elif form == 3:
        right = display(w)
    elif form == 4:
        names = w.scope.numbers + w.scope.texts
        right = w.pick(names) if names else str(literal(w))
    elif form == 5:
        w.lines.append(f"{pad}{target} += {w.below(9) + 1}\n")
        return
    elif form == 6:
        w.lines.append(f"{pad}print({target})\n")
        return
    else:
        name = w.fresh_value()
        w.lines.append(f"{pad}{name} = {target}\n")
        w.scope.numbers.append(name)
        return
    w.lines.append(f"{pad}{target} = {right}\n")


def assign_other(w: Writer, pad: str) -> None:
    """What else happens to names: copies, negations, None, checks, comments."""
    scope = w.scope
    form = w.below(6)
    if form == 0:
        # A comment alone is no body for a block.
        w.lines.append(f"{pad}# {phrase(w)}\n")
        change_number(w, pad)
    elif form == 1:
        w.lines.append(f"{pad}assert {condition(w, pad)}\n")
    elif form == 2:
        source = w.flag(pad)
        name = w.fresh_name(words.FLAG_NAMES)
        w.lines.append(f"{pad}{name} = not {source}\n")
        scope.flags.append(name)
    elif form == 3:
        w.lines.append(f"{pad}{w.fresh_name(words.TEXT_NAMES)} = None\n")
    else:
        source = w.number(pad)
        name = w.fresh_value()
        right = source if form == 4 else f"{w.pick(('max', 'min'))}({source}, {value(w)})"
        w.lines.append(f"{pad}{name} = {right}\n")
        scope.numbers.append(name)


SIMPLE = (
    (print_message,) * 7
    + (print_value,) * 3
    + (print_formatted,) * 6
    + (assign_number,) * 5
    + (change_number,) * 3
    + (assign_text,) * 3
    + (assign_flag,) * 4
    + (assign_ternary,) * 9
    + (assign_flat,) * 4
    + (assign_nested,) * 11
    + (use_display,) * 2
    + (append_item,) * 2
    + (use_item,) * 2
    + (assign_dict,) * 3
    + (use_key,) * 2
    + (comprehension,) * 2
    + (use_lambda,) * 8
    + (swap,) * 6
    + (call_function,) * 4
    + (tell,) * 5
    + (use_object,) * 4
    + (assign_other,) * 5
)
"""Statements by weight, for the top of a function or module."""

SMALL = (
    (print_message,) * 6
    + (print_value,) * 4
    + (print_formatted,) * 5
    + (assign_number,) * 3
    + (change_number,) * 5
    + (assign_text,) * 1
    + (assign_flag,) * 3
    + (assign_ternary,) * 4
    + (append_item,) * 2
    + (use_key,) * 1
    + (use_lambda,) * 1
    + (swap,) * 4
    + (call_function,) * 2
    + (tell,) * 3
    + (use_object,) * 2
    + (assign_other,) * 2
)
"""Statements by weight, for the inside of blocks."""


def simple(w: Writer, pad: str) -> None:
    """One statement for the top of a function or module."""
    w.pick(SIMPLE)(w, pad)


def small(w: Writer, pad: str) -> None:
    """One statement for the inside of a block."""
    w.pick(SMALL)(w, pad)
