"""Sections of a program without definitions: runs of statements, computations, tables, file copies, exchanges."""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.blocks import block, file_variable, open_file, quoted_file, with_block
from sparse_gpt.data.idioms.containers import any_list
from sparse_gpt.data.idioms.expressions import (
    dict_display,
    flat_list,
    formatted,
    lambda_expression,
    literal,
    nested_list,
)
from sparse_gpt.data.idioms.routines import routine
from sparse_gpt.data.idioms.statements import simple, swap, use_lambda
from sparse_gpt.data.idioms.writer import Writer


def statements(w: Writer, pad: str) -> None:
    """Two to six statements, some of them blocks."""
    for _ in range(w.below(5) + 2):
        if w.chance(30):
            block(w, pad, 2)
        else:
            simple(w, pad)


def shown_routine(w: Writer, pad: str) -> None:
    """A computation whose result is printed."""
    result = routine(w, pad)
    if w.chance(70):
        w.lines.append(f"{pad}print({result})\n")
    else:
        w.lines.append(f"{pad}print({formatted(w, [result])})\n")


def files(w: Writer, pad: str) -> None:
    """One or two files; often one is read and the other written."""
    if w.chance(45):
        with_block(w, pad, 1)
        return
    source, target = w.fresh((file_variable(w, False),)), w.fresh((file_variable(w, True),))
    lines = [f"{pad}{source} = {quoted_file(w)}\n", f"{pad}{target} = {quoted_file(w)}\n"]
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
        name = w.fresh_name(words.GRID_NAMES if form < 2 else words.DICT_NAMES if form < 4 else words.ACCUMULATOR_NAMES)
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
    name = w.fresh_name(words.DICT_NAMES)
    quote = w.quote()
    pool = w.pick(words.MEMBERS)
    keys = list(dict.fromkeys([f"{quote}{w.pick(pool)}{quote}" for _ in range(w.below(4) + 2)]))
    rows = [f"{pad}    {key}: {literal(w)},\n" if is_dict else f"{pad}    {key},\n" for key in keys]
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


def lambdas(w: Writer, pad: str) -> None:
    """Two or three lambdas, bound to names or handed to sorting and filtering."""
    if w.chance(40):
        rows = [f"{pad}    {lambda_expression(w)},\n" for _ in range(w.below(3) + 1)]
        w.lines.append(f"{pad}{w.fresh_name(words.ACCUMULATOR_NAMES)} = [\n{''.join(rows)}{pad}]\n")
    for _ in range(w.below(2) + 1):
        use_lambda(w, pad)


SECTIONS = (
    (statements,) * 10
    + (shown_routine,) * 13
    + (files,) * 4
    + (tables,) * 3
    + (long_table,) * 2
    + (swaps,) * 3
    + (lambdas,) * 2
)
"""Sections without definitions, by weight."""
