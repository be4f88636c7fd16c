"""Sections of a program: runs of statements, loops that fill sets, strings and lists, tables, file copies."""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.blocks import block, file_name, open_file, with_block
from sparse_gpt.data.idioms.expressions import dict_display, flat_list, formatted, literal, nested_list, word
from sparse_gpt.data.idioms.statements import any_list, simple, small, swap
from sparse_gpt.data.idioms.writer import INDENT, Writer


def statements(w: Writer, pad: str) -> None:
    """Two to six statements, some of them blocks."""
    for _ in range(w.below(5) + 2):
        if w.chance(30):
            block(w, pad, 2)
        else:
            simple(w, pad)


def grow(w: Writer, pad: str, name: str, kind: int, member: str, is_number: bool) -> None:
    """One line that adds to an accumulator of the given kind (an index into `EMPTY`)."""
    form = w.below(10)
    if kind == 0:
        item = member if form < 6 else str(literal(w)) if is_number else word(w)
        method = "add" if w.chance(94) else "discard"
        w.lines.append(f"{pad}{name}.{method}({item})\n")
    elif kind == 1:
        item = (f"str({member})" if is_number else member) if form < 5 else word(w) if form < 8 else ""
        w.lines.append(f"{pad}{name} += {item or formatted(w, [member])}\n")
    elif kind == 2:
        w.lines.append(f"{pad}{name}.append({member if form < 7 else literal(w) if is_number else word(w)})\n")
    elif kind == 3:
        w.lines.append(f"{pad}{name}[{member}] = {w.pick(('1', 'True', member, str(literal(w))))}\n")
    else:
        w.lines.append(f"{pad}{name} += {w.pick(('1', '1', '2', str(literal(w))))}\n")


EMPTY = ("set()", "", "[]", "{}", "0")
"""What an accumulator starts as; the empty string is quoted either way when written."""
KINDS = (0, 0, 0, 1, 1, 1, 2, 3, 4)


def start_accumulators(w: Writer, pad: str) -> list[tuple[str, int]]:
    """Binds one to three accumulators and returns their (name, kind)."""
    made = []
    for _ in range(w.pick((1, 1, 2, 2, 3))):
        kind = w.pick(KINDS)
        name = w.fresh(words.ACCUMULATOR_NAMES if w.chance(80) else words.LETTERS)
        quote = w.quote()
        w.lines.append(f"{pad}{name} = {EMPTY[kind] or quote + quote}\n")
        made.append((name, kind))
        if w.chance(20):
            small(w, pad)
    return made


def accumulate(w: Writer, pad: str) -> str:
    """Empty sets, strings, lists; then a loop or plain lines that fill them. Returns the name of one of them."""
    member, source, is_number = any_list(w, pad)
    made = start_accumulators(w, pad)
    if w.chance(30):
        for name, kind in made * (w.below(2) + 1):
            item = word(w)
            if not is_number and kind < 3:
                w.lines.append(
                    f"{pad}{name} += {item}\n" if kind == 1 else f"{pad}{name}.{'append' if kind else 'add'}({item})\n"
                )
            else:
                grow(w, pad, name, kind, f"{source}[{w.below(3)}]", is_number)
    else:
        inner = pad + INDENT
        w.lines.append(f"{pad}for {member} in {source}:\n")
        if w.chance(35):
            test = f"{member} {w.pick(('>', '<', '=='))} {literal(w)}" if is_number else f"{member} != {word(w)}"
            w.lines.append(f"{inner}if {test}:\n")
            inner += INDENT
        for name, kind in made if w.draw() & 1 else made[::-1]:
            grow(w, inner, name, kind, member, is_number)
    return w.pick(made)[0]


def accumulate_and_show(w: Writer, pad: str) -> None:
    """An accumulation whose result is printed."""
    w.lines.append(f"{pad}print({accumulate(w, pad)})\n")


def files(w: Writer, pad: str) -> None:
    """One or two files; often one is read and the other written."""
    if w.chance(45):
        with_block(w, pad, 1)
        return
    source, target = w.fresh(words.INPUT_NAMES), w.fresh(words.OUTPUT_NAMES)
    lines = [
        f"{pad}{source} = {file_name(w, words.NEUTRAL_STEMS)}\n",
        f"{pad}{target} = {file_name(w, words.NEUTRAL_STEMS)}\n",
    ]
    w.lines += lines if w.draw() & 1 else lines[::-1]
    if w.chance(70):
        open_file(w, pad, source, False, 1)
        open_file(w, pad, target, True, 1)
    else:
        open_file(w, pad, target, True, 1)
        open_file(w, pad, source, False, 1)


def tables(w: Writer, pad: str) -> None:
    """Two to four displays: flat lists, nested lists, dicts, mixed so that only the brackets tell them apart."""
    for _ in range(w.below(3) + 2):
        form = w.below(6)
        name = w.fresh(words.GRID_NAMES if form < 2 else words.DICT_NAMES if form < 4 else words.ACCUMULATOR_NAMES)
        kind = w.below(5)
        if kind < 2:
            right = nested_list(w)
        elif kind == 2:
            right = flat_list(w, w.chance(40))
        else:
            right = dict_display(w)
            w.scope.dicts.append(name)
        w.lines.append(f"{pad}{name} = {right}\n")
    if w.chance(40):
        block(w, pad, 1)


def long_table(w: Writer, pad: str) -> None:
    """A list or dict written over several lines."""
    is_dict = w.draw() & 1
    name = w.fresh(words.DICT_NAMES)
    quote = w.quote()
    rows = []
    for _ in range(w.below(4) + 2):
        key = f"{quote}{w.pick(words.THINGS)}{quote}"
        rows.append(f"{pad}    {key}: {literal(w)},\n" if is_dict else f"{pad}    {key},\n")
    start, end = ("{", "}") if is_dict else ("[", "]")
    w.lines.append(f"{pad}{name} = {start}\n{''.join(rows)}{pad}{end}\n")
    if is_dict:
        w.scope.dicts.append(name)
    else:
        w.scope.text_lists.append(("item", name))
    if w.chance(60):
        block(w, pad, 1)


def swaps(w: Writer, pad: str) -> None:
    """Exchanges, of names and of list members."""
    swap(w, pad)
    if w.chance(40):
        _, name, _ = any_list(w, pad)
        i, j = w.pick(("i", "0", "1", "left", "a")), w.pick(("j", "2", "-1", "right", "b"))
        for position in (i, j):
            if position.isalpha() and position not in w.scope.numbers:
                w.lines.append(f"{pad}{position} = {w.below(10)}\n")
                w.scope.taken.add(position)
                w.scope.numbers.append(position)
        w.lines.append(f"{pad}{name}[{i}], {name}[{j}] = {name}[{j}], {name}[{i}]\n")
    else:
        swap(w, pad)


SECTIONS = (
    (statements,) * 10 + (accumulate_and_show,) * 5 + (files,) * 4 + (tables,) * 3 + (long_table,) * 1 + (swaps,) * 2
)
"""Sections without definitions, by weight."""
