"""Functions and classes."""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.blocks import block, open_file
from sparse_gpt.data.idioms.expressions import condition, formatted, literal, message, phrase, value, word
from sparse_gpt.data.idioms.sections import accumulate
from sparse_gpt.data.idioms.statements import simple, small
from sparse_gpt.data.idioms.writer import INDENT, Scope, Writer

OTHER_DEFAULTS = ("0", "1", "True", "False", '""', "''")


def function_name(w: Writer) -> str:
    """A verb with an object, a bare word, or a letter: single words also serve as names of lambda parameters."""
    taken = w.scope.taken
    form = w.below(10)
    for _ in range(6):
        if form < 6:
            name = f"{w.pick(words.VERBS)}_{w.pick(words.OBJECTS)}"
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
        if w.chance(60):
            name = w.fresh(words.NUMBER_NAMES if w.chance(70) else words.LETTERS)
            scope.numbers.append(name)
        else:
            name = w.fresh(words.TEXT_NAMES)
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
            right = literal(w) if name in w.scope.numbers else word(w)
            w.lines.append(f"{pad}if {name} is None:\n{pad}    {name} = {right}\n")


def finish(w: Writer, pad: str) -> None:
    """The last statement of a function."""
    form = w.below(10)
    if form < 2:
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
        w.lines.append(f"{pad}return {value(w)} if {test} else {value(w)}\n")
    elif form == 6:
        names = w.scope.numbers + w.scope.texts or [w.number(pad)]
        w.lines.append(f"{pad}return {formatted(w, names)}\n")
    elif form == 7:
        w.lines.append(f"{pad}return {message(w)}\n")
    else:
        small(w, pad)


def function(w: Writer, pad: str) -> None:
    """A function with its own scope: some steps, an accumulation, a file, or a wait for something."""
    name = function_name(w)
    outer, w.scope = w.scope, Scope()
    inner = pad + INDENT
    form = w.below(10)
    count = w.pick((0, 1, 1, 2, 2, 3, 3, 4))
    if form == 0:
        file_function(w, inner)
    else:
        text, _, optional = parameters(w, count)
        w.lines.append(f"{pad}def {name}({text}):\n")
        docstring(w, inner)
        fill_defaults(w, inner, optional)
        if form < 3:
            w.lines.append(f"{inner}return {accumulate(w, inner)}\n")
        else:
            for _ in range(w.below(3)):
                simple(w, inner)
            if w.chance(50):
                block(w, inner, 2)
            finish(w, inner)
        outer_functions = w.functions
        outer_functions.append((name, count))
    w.scope = outer


def file_function(w: Writer, inner: str) -> None:
    """A function that reads or writes the file it is given, as its name says."""
    write = bool(w.draw() & 1)
    name = w.pick(words.WRITE_FUNCTIONS if write else words.READ_FUNCTIONS)
    if w.draw() & 1:
        path = w.pick(("path", "path", "file_name", "name"))
    else:
        path = w.pick(words.OUTPUT_NAMES if write else words.INPUT_NAMES)
    w.scope.taken.add(path)
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


def class_definition(w: Writer, pad: str) -> None:
    """A class with attributes taken from its arguments and one to three methods."""
    name = w.fresh(words.CLASS_NAMES)
    inner = pad + INDENT
    outer, w.scope = w.scope, Scope()
    count = w.pick((1, 2, 2, 3, 3, 4))
    text, names, optional = parameters(w, count)
    w.lines.append(f"{pad}class {name}:\n{inner}def __init__(self, {text}):\n")
    deeper = inner + INDENT
    fill_defaults(w, deeper, optional[:1])
    if w.chance(20):
        names = names[::-1]
    assigned = [f"{deeper}self.{attribute} = {attribute}\n" for attribute in names]
    if w.chance(25):
        extra = w.fresh(words.ACCUMULATOR_NAMES)
        assigned.insert(w.below(len(names) + 1), f"{deeper}self.{extra} = {w.pick(('[]', '0', 'set()', 'None'))}\n")
    w.lines += assigned
    for _ in range(w.below(3)):
        w.lines.append("\n")
        method(w, inner, names)
    w.scope = outer
    if w.chance(60):
        arguments = ", ".join([str(literal(w)) if w.chance(60) else word(w) for _ in names])
        instance = w.fresh((name.lower(), "item", "x", "a", "b"))
        w.lines.append(f"\n{pad}{instance} = {name}({arguments})\n{pad}print({instance}.{w.pick(names)})\n")


def method(w: Writer, pad: str, attributes: list[str]) -> None:
    """A method that reads, sets, shows or tests attributes."""
    inner = pad + INDENT
    attribute = w.pick(attributes)
    w.scope = Scope()
    form = w.below(6)
    if form == 0:
        w.lines.append(f"{pad}def get_{attribute}(self):\n{inner}return self.{attribute}\n")
    elif form == 1:
        w.lines.append(f"{pad}def set_{attribute}(self, {attribute}):\n{inner}self.{attribute} = {attribute}\n")
    elif form == 2:
        head = w.pick(("__str__", "__repr__", "show"))
        shown = formatted(w, [f"self.{attribute}"])
        w.lines.append(f"{pad}def {head}(self):\n{inner}return {shown}\n")
    elif form == 3:
        test = f"self.{attribute} {w.pick(('==', '>', '<'))} {literal(w)}"
        w.lines.append(f"{pad}def is_{w.pick(words.STATES)}(self):\n{inner}if {test}:\n{inner}    return True\n")
        w.lines.append(f"{inner}return False\n")
    else:
        text, names, optional = parameters(w, w.below(3))
        w.lines.append(f"{pad}def {w.pick(words.VERBS)}(self{', ' if text else ''}{text}):\n")
        fill_defaults(w, inner, optional)
        if form == 4 and names:
            w.lines.append(f"{inner}self.{attribute} = {w.pick(names)}\n")
        else:
            small(w, inner)
        finish(w, inner)
