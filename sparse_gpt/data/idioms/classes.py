"""Classes: attributes taken from arguments, methods that read, set, show and test them."""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.blocks import block
from sparse_gpt.data.idioms.expressions import condition, display, formatted, literal, word
from sparse_gpt.data.idioms.functions import fill_defaults, finish, parameters
from sparse_gpt.data.idioms.routines import routine
from sparse_gpt.data.idioms.statements import small
from sparse_gpt.data.idioms.writer import INDENT, Scope, Writer


def class_definition(w: Writer, pad: str) -> None:
    """A class with attributes taken from its arguments and one to three methods."""
    name = w.fresh(words.CLASS_NAMES) if w.chance(65) else w.fresh((w.rare().capitalize(),))
    inner = pad + INDENT
    outer, w.scope = w.scope, Scope()
    count = w.pick((1, 2, 2, 3, 3, 4))
    text, names, optional = parameters(w, count)
    base = base_class(w, name) if w.chance(15) else ""
    w.lines.append(f"{pad}class {name}{base}:\n")
    if w.chance(10):
        class_constants(w, inner)
    w.lines.append(f"{inner}def __init__(self, {text}):\n")
    deeper = inner + INDENT
    fill_defaults(w, deeper, optional[:1])
    if w.chance(25):
        names = names[::-1]
    assigned = [f"{deeper}self.{attribute} = {attribute}\n" for attribute in names]
    if base:
        inherited = assigned.pop(0) if len(assigned) > 1 else ""
        w.lines.append(f"{deeper}super().__init__({inherited.rpartition(' ')[2].strip()})\n")
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
        w.scope.objects.append(instance)
        w.lines.append(f"\n{pad}{instance} = {name}({arguments})\n{pad}print({instance}.{w.pick(names)})\n")


def base_class(w: Writer, name: str) -> str:
    """Another class to build on, in brackets: imported by the program."""
    base = w.pick([base for base in words.CLASS_NAMES if base != name])
    if base not in w.scope.taken and base not in w.helpers:
        w.helpers.append(base)
    return f"({base})"


def class_constants(w: Writer, pad: str) -> None:
    """A table that belongs to a class."""
    for _ in range(w.below(2) + 1):
        w.lines.append(f"{pad}{w.fresh(words.GRID_NAMES)} = {display(w)}\n")
    w.lines.append("\n")


def setter(w: Writer, pad: str, attribute: str) -> None:
    """A method that takes over one or two values, sometimes under a condition."""
    inner = pad + INDENT
    w.scope.taken.add(attribute)
    names = [attribute]
    if w.draw() & 1:
        names.insert(w.below(2), w.fresh_name(words.NUMBER_NAMES))
    verb = w.pick((f"set_{attribute}", "update", "change", w.pick(words.VERBS)))
    w.lines.append(f"{pad}def {verb}(self, {', '.join(names)}):\n")
    if w.chance(30):
        w.scope.numbers += names
        test = condition(w, inner)
        w.lines.append(f"{inner}if {test}:\n")
        inner += INDENT
    w.lines += [f"{inner}self.{name} = {name}\n" for name in (names if w.chance(70) else names[::-1])]


def method(w: Writer, pad: str, attributes: list[str]) -> None:
    """A method that reads, sets, shows or tests attributes."""
    inner = pad + INDENT
    attribute = w.pick(attributes)
    w.scope = Scope()
    w.scope.objects.append("self")
    form = w.below(9)
    if form == 0:
        w.lines.append(f"{pad}def get_{attribute}(self):\n{inner}return self.{attribute}\n")
    elif form == 1:
        setter(w, pad, attribute)
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
        elif form < 6:
            small(w, inner)
        elif form == 6:
            w.lines.append(f"{inner}return {routine(w, inner)}\n")
            return
        else:
            block(w, inner, 1)
        finish(w, inner)
