"""Functions: their parameters, what they do, how they end."""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.blocks import block, file_variable, open_file
from sparse_gpt.data.idioms.containers import any_list
from sparse_gpt.data.idioms.expressions import (
    condition,
    dict_display,
    flat_list,
    formatted,
    lambda_expression,
    literal,
    message,
    nested_list,
    phrase,
    spoken,
    value,
    word,
)
from sparse_gpt.data.idioms.routines import routine
from sparse_gpt.data.idioms.statements import call_function, simple, small
from sparse_gpt.data.idioms.writer import INDENT, Scope, Writer

OTHER_DEFAULTS = ("0", "1", "True", "False", '""', "''")


def function_name(w: Writer, scope: Scope) -> str:
    """A verb with an object, a bare word, or a letter: single words also serve as names of lambda parameters."""
    taken = scope.taken
    form = w.below(10)
    for _ in range(6):
        if form < 5:
            name = f"{w.pick(words.VERBS)}_{w.pick(words.OBJECTS) if w.chance(70) else w.rare()}"
        elif form == 5:
            name = w.rare()
        else:
            name = w.pick(words.VERBS if form == 6 else words.OBJECTS if form < 9 else words.LETTERS)
        if name not in taken:
            break
    taken.add(name)
    return name


def parameters(w: Writer, count: int) -> tuple[str, list[str], list[str]]:
    """Binds `count` parameters in the current scope: (text of the list, names, names whose default is None).

    Once one parameter has a default, all later ones need one. A first default on the very last of several
    parameters is kept rare, so that the end of the list mostly follows from what came before.
    """
    scope = w.scope
    first_default = count
    if count and w.draw() & 1:
        first_default = w.below(count)
        if first_default == count - 1 and count > 1 and w.chance(75):
            first_default -= 1
    names, parts, optional = [], [], []
    for position in range(count):
        kind = w.below(20)
        if kind < 3:
            name = w.fresh_list(bool(kind))
        elif kind == 3:
            name = w.fresh(words.OBJECT_NAMES)
            scope.objects.append(name)
        elif kind < 13:
            name = w.fresh_name(words.NUMBER_NAMES) if w.chance(70) else w.fresh(words.LETTERS)
            scope.numbers.append(name)
        else:
            name = w.fresh_name(words.TEXT_NAMES)
            scope.texts.append(name)
        names.append(name)
        if position < first_default:
            parts.append(name)
        elif w.chance(92):
            parts.append(f"{name}=None")
            optional.append(name)
        else:
            parts.append(f"{name}={w.pick(OTHER_DEFAULTS)}")
    return ", ".join(parts), names, optional


def fill_defaults(w: Writer, pad: str, optional: list[str]) -> None:
    """Replaces None by something else, for some of the optional parameters."""
    for name in optional:
        if w.chance(40):
            right = literal(w) if name in w.scope.numbers else word(w) if name in w.scope.texts else "[]"
            w.lines.append(f"{pad}if {name} is None:\n{pad}    {name} = {right}\n")


def finish(w: Writer, pad: str) -> None:
    """The last statement of a function."""
    form = w.below(12)
    if form == 11:
        w.lines.append(f"{pad}{w.pick(('return', 'return', 'yield'))} {lambda_expression(w)}\n")
    elif form == 10:
        right = dict_display(w) if w.draw() & 1 else spoken(w)
        w.lines.append(f"{pad}{w.pick(('return', 'return', 'yield'))} {right}\n")
    elif form < 2:
        w.lines.append(f"{pad}return {value(w)}\n")
    elif form < 4:
        test = condition(w, pad)
        first = w.pick(("True", "False"))
        w.lines.append(f"{pad}if {test}:\n{pad}    return {first}\n")
        w.lines.append(f"{pad}return {'False' if first == 'True' else 'True'}\n")
    elif form == 4:
        w.lines.append(f"{pad}return {w.pick(('True', 'False'))}\n")
    elif form == 5:
        test = condition(w, pad)
        keyword = w.pick(("return", "return", "return", "yield"))
        w.lines.append(f"{pad}{keyword} {value(w)} if {test} else {value(w)}\n")
    elif form == 6:
        names = w.scope.numbers + w.scope.texts or [w.number(pad)]
        w.lines.append(f"{pad}return {formatted(w, names)}\n")
    elif form == 7:
        call = f"{w.helper()}({spoken(w)})" if w.draw() & 1 else message(w)
        w.lines.append(f"{pad}return {call}\n")
    elif form == 8:
        right = nested_list(w) if w.draw() & 1 else flat_list(w, w.chance(60))
        w.lines.append(f"{pad}return {right}\n")
    else:
        small(w, pad)


def function(w: Writer, pad: str) -> None:
    """A function with its own scope: some steps, a computation, a search, or a file."""
    outer, w.scope = w.scope, Scope()
    inner = pad + INDENT
    form = w.below(13)
    if form == 0:
        file_function(w, inner)
        w.scope = outer
        return
    name = function_name(w, outer)
    header = len(w.lines)
    text, names, optional = parameters(w, w.pick((0, 1, 1, 2, 2, 3, 3, 4)))
    w.lines.append(f"{pad}def {name}({text}):\n")
    docstring(w, inner)
    fill_defaults(w, inner, optional)
    if w.chance(10):
        refuse(w, inner)
    if form < 4:
        w.lines.append(f"{inner}return {routine(w, inner)}\n")
    elif form == 4:
        search_function(w, inner)
    elif form == 5:
        wait_function(w, inner)
    else:
        for _ in range(w.below(3)):
            simple(w, inner)
        if w.chance(45):
            block(w, inner, 2)
        finish(w, inner)
    # An async function that yields may not return a value as well.
    if w.chance(8) and not any("yield" in line for line in w.lines[header:]):
        w.lines[header] = f"{pad}async {w.lines[header][len(pad) :]}"
    w.scope = outer
    w.functions.append((name, names, text.count(",") + bool(text) - text.count("=")))
    if w.chance(30):
        w.lines.append("\n")
        call_function(w, pad)


def refuse(w: Writer, pad: str) -> None:
    """An error for arguments that will not do."""
    test = condition(w, pad)
    w.lines.append(f"{pad}if {test}:\n{pad}    raise {w.pick(words.ERRORS)}({spoken(w)})\n")


def search_function(w: Writer, pad: str) -> None:
    """Goes through a list and answers True or False."""
    member, source, is_number = any_list(w, pad)
    first, last = ("True", "False") if w.chance(70) else ("False", "True")
    test = f"{member} {w.pick(('==', '>', '<'))} {literal(w)}" if is_number else f"{member} == {word(w)}"
    w.lines.append(f"{pad}for {member} in {source}:\n{pad}    if {test}:\n{pad}        return {first}\n")
    w.lines.append(f"{pad}return {last}\n")


def wait_function(w: Writer, pad: str) -> None:
    """A loop without end that answers True or False from within."""
    name = w.number(pad)
    inner = pad + INDENT
    w.lines.append(f"{pad}while True:\n")
    if w.draw() & 1:
        small(w, inner)
    for answer in w.pick((("True",), ("True",), ("False",), ("True", "False"), ("False", "True"))):
        test = condition(w, inner) if w.chance(30) else f"{name} {w.pick(('>', '<', '=='))} {literal(w)}"
        w.lines.append(f"{inner}if {test}:\n{inner}    return {answer}\n")
    w.lines.append(f"{inner}{name} {w.pick(('+=', '-='))} {w.below(3) + 1}\n")


def file_function(w: Writer, inner: str) -> None:
    """A function that reads or writes the file it is given, as its name says."""
    write = bool(w.draw() & 1)
    verb = w.pick(words.WRITE_VERBS if write else words.READ_VERBS)
    name = f"{verb}_{w.pick(words.OBJECTS) if w.chance(60) else w.rare()}"
    path = w.fresh(words.PATH_NAMES if w.chance(60) else (file_variable(w, write),))
    w.lines.append(f"{inner[4:]}def {name}({path}):\n")
    docstring(w, inner)
    open_file(w, inner, path, write, 1)
    finish(w, inner)


def docstring(w: Writer, pad: str) -> None:
    """Seldom: a line on what the function does."""
    if w.chance(8):
        w.lines.append(f'{pad}"""{phrase(w).capitalize()}."""\n')
    elif w.chance(5):
        w.lines.append(f"{pad}# {phrase(w)}\n")
