"""Small well-known computations over lists: fill sets and strings, find the largest, count, search, sort.

Every routine writes its lines and returns the expression that holds its result.
"""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.containers import any_list, loop_over
from sparse_gpt.data.idioms.expressions import flat_list, formatted, literal, word
from sparse_gpt.data.idioms.statements import small
from sparse_gpt.data.idioms.writer import INDENT, Writer

EMPTY = ("set()", "", "[]", "{}", "0")
"""What an accumulator starts as, by kind; the empty string is quoted either way when written."""
KINDS = (0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 3, 4)


def start_accumulators(w: Writer, pad: str) -> list[tuple[str, int]]:
    """Binds one to three accumulators and returns their (name, kind)."""
    made = []
    for _ in range(w.pick((1, 1, 2, 2, 3))):
        kind = w.pick(KINDS)
        if w.chance(25) and "current" not in w.scope.taken:
            name = w.fresh(("current",))
        else:
            name = w.fresh_name(words.ACCUMULATOR_NAMES) if w.chance(85) else w.fresh(words.LETTERS)
        quote = w.quote()
        w.lines.append(f"{pad}{name} = {EMPTY[kind] or quote + quote}\n")
        made.append((name, kind))
        for _ in range(w.pick((0, 0, 0, 0, 1, 2))):
            small(w, pad)
    return made


def grow(w: Writer, pad: str, name: str, kind: int, member: str, is_number: bool) -> None:
    """One line that adds a member or a literal to an accumulator of the given kind (an index into `EMPTY`)."""
    form = w.below(10)
    fixed = str(literal(w)) if is_number else word(w)
    if kind == 0:
        method = "add" if w.chance(95) else "discard"
        w.lines.append(f"{pad}{name}.{method}({member if form < 6 else fixed})\n")
    elif kind == 1:
        if form < 5:
            item = f"str({member})" if is_number else member
        else:
            item = formatted(w, [member]) if form > 7 and member.isidentifier() else word(w)
        w.lines.append(f"{pad}{name} += {item}\n")
    elif kind == 2:
        w.lines.append(f"{pad}{name}.append({member if form < 7 else fixed})\n")
    elif kind == 3:
        w.lines.append(f"{pad}{name}[{member}] = {w.pick(('1', 'True', member, fixed))}\n")
    else:
        w.lines.append(f"{pad}{name} += {w.pick(('1', '1', '2', str(literal(w))))}\n")


def accumulate(w: Writer, pad: str) -> str:
    """Empty sets, strings, lists; then a loop that fills them, sometimes under a condition."""
    member, source, is_number = any_list(w, pad)
    made = start_accumulators(w, pad)
    inner = pad + INDENT
    loop_over(w, pad, member, source)
    if w.chance(35):
        test = f"{member} {w.pick(('>', '<', '=='))} {literal(w)}" if is_number else f"{member} != {word(w)}"
        w.lines.append(f"{inner}if {test}:\n")
        inner += INDENT
    for name, kind in made if w.draw() & 1 else made[::-1]:
        grow(w, inner, name, kind, member, is_number)
    return w.pick(made)[0]


def accumulate_plainly(w: Writer, pad: str) -> str:
    """Empty sets, strings, lists, filled line by line, from values or from literals alone."""
    made = start_accumulators(w, pad)
    numbers = w.scope.numbers
    for _ in range(w.below(3) + 1):
        for name, kind in made if w.draw() & 1 else made[::-1]:
            is_number = bool(numbers) and w.chance(40)
            grow(w, pad, name, kind, w.pick(numbers) if is_number else word(w), is_number)
    return w.pick(made)[0]


def largest(w: Writer, pad: str) -> str:
    member, source, _ = any_list(w, pad, numbers=True)
    best = w.fresh(("best", "largest", "smallest", "top", "current", "first", "result"))
    inner = pad + INDENT
    w.lines.append(f"{pad}{best} = {source}[0]\n{pad}for {member} in {source}:\n")
    w.lines.append(f"{inner}if {member} {w.pick(('>', '<'))} {best}:\n{inner}    {best} = {member}\n")
    w.scope.numbers.append(best)
    return best


def count_members(w: Writer, pad: str) -> str:
    member, source, _ = any_list(w, pad)
    counts = w.fresh(("counts", "seen", "table", "result", "found"))
    inner = pad + INDENT
    w.lines.append(f"{pad}{counts} = {{}}\n")
    loop_over(w, pad, member, source)
    if w.draw() & 1:
        w.lines.append(f"{inner}{counts}[{member}] = {counts}.get({member}, 0) + 1\n")
    else:
        first, other = ("not in", "in") if w.draw() & 1 else ("in", "not in")
        new, old = f"{counts}[{member}] = 1\n", f"{counts}[{member}] += 1\n"
        w.lines.append(f"{inner}if {member} {first} {counts}:\n{inner}    {old if first == 'in' else new}")
        w.lines.append(f"{inner}else:\n{inner}    {old if other == 'in' else new}")
    w.scope.dicts.append(counts)
    return counts


def search(w: Writer, pad: str) -> str:
    member, source, is_number = any_list(w, pad)
    flag = w.fresh_name(words.FLAG_NAMES)
    inner = pad + INDENT
    w.lines.append(f"{pad}{flag} = False\n")
    loop_over(w, pad, member, source)
    w.lines.append(f"{inner}if {member} == {literal(w) if is_number else word(w)}:\n{inner}    {flag} = True\n")
    if w.draw() & 1:
        w.lines.append(f"{inner}    break\n")
    w.scope.flags.append(flag)
    if w.draw() & 1:
        w.lines.append(f"{pad}if {flag} == True:\n")
        small(w, inner)
    return flag


def walk_grid(w: Writer, pad: str) -> str:
    """Two loops, one inside the other, over rows and their members or over two ranges."""
    total = w.fresh_value()
    inner, deeper = pad + INDENT, pad + INDENT * 2
    if w.draw() & 1:
        grid = w.fresh_name(words.GRID_NAMES)
        count = w.below(3) + 1
        w.lines.append(f"{pad}{grid} = [{', '.join([flat_list(w, True) for _ in range(count)])}]\n{pad}{total} = 0\n")
        row = w.fresh(("row", "group", "r", "line"))
        member = w.fresh(("x", "cell", "value", "n", "item"))
        w.lines.append(f"{pad}for {row} in {grid}:\n{inner}for {member} in {row}:\n")
    else:
        member, other = w.fresh(("i", "x", "a")), w.fresh(("j", "y", "b"))
        limit = w.below(9) + 1
        w.lines.append(f"{pad}{total} = 0\n{pad}for {member} in range({limit}):\n")
        w.lines.append(f"{inner}for {other} in range({w.pick((member, str(limit)))}):\n")
    w.scope.numbers.append(total)
    if w.chance(40):
        w.lines.append(f"{deeper}if {member} {w.pick(('>', '<', '=='))} {literal(w)}:\n{deeper}    {total} += 1\n")
    else:
        w.lines.append(f"{deeper}{total} += {member}\n")
    if w.chance(30):
        w.lines.append(f"{inner}print({total})\n")
    return total


def sort_in_place(w: Writer, pad: str) -> str:
    _, source, _ = any_list(w, pad, numbers=True)
    one, two, three = pad + INDENT, pad + INDENT * 2, pad + INDENT * 3
    i, j = w.pick((("i", "j"), ("i", "k"), ("a", "b"), ("x", "y")))
    w.scope.taken |= {i, j}
    w.lines.append(f"{pad}for {i} in range(len({source})):\n{one}for {j} in range({i}):\n")
    w.lines.append(f"{two}if {source}[{i}] {w.pick(('<', '>'))} {source}[{j}]:\n")
    w.lines.append(f"{three}{source}[{i}], {source}[{j}] = {source}[{j}], {source}[{i}]\n")
    return source


def step_pair(w: Writer, pad: str) -> str:
    """Two numbers that move on together in a loop, or change places in it."""
    a, b = w.fresh_value(), w.fresh_value()
    inner = pad + INDENT
    w.lines.append(f"{pad}{a} = {w.below(10)}\n{pad}{b} = {w.below(10)}\n")
    if w.draw() & 1:
        w.lines.append(f"{pad}while {a} < {literal(w)}:\n")
    else:
        w.lines.append(f"{pad}for {w.pick(('i', '_', 'step'))} in range({literal(w)}):\n")
    w.lines.append(f"{inner}{a}, {b} = {b}, {a}{w.pick(('', '', f' + {b}', ' + 1'))}\n")
    w.scope.numbers += (a, b)
    return w.pick((a, b))


def ask(w: Writer, pad: str) -> str:
    """A loop without end that reads words until one of them says stop."""
    line = w.fresh(("line", "word", "text", "answer", "name"))
    words_read = w.fresh(words.ACCUMULATOR_NAMES)
    kind = w.below(3)
    quote = w.quote()
    inner = pad + INDENT
    w.lines.append(f"{pad}{words_read} = {EMPTY[kind] or quote + quote}\n{pad}while True:\n")
    w.lines.append(f"{inner}{line} = input({quote}{w.pick(words.LABELS)}: {quote})\n")
    w.lines.append(f"{inner}if {line} == {w.pick(('quit', 'stop', 'end', 'done')).join((quote, quote))}:\n")
    w.lines.append(f"{inner}    break\n")
    grow(w, inner, words_read, kind, line, False)
    return words_read


ROUTINES = (
    (accumulate,) * 14
    + (accumulate_plainly,) * 7
    + (largest,) * 2
    + (count_members,) * 2
    + (search,) * 2
    + (walk_grid,) * 6
    + (sort_in_place,) * 1
    + (step_pair,) * 2
    + (ask,) * 2
)
"""Routines by weight."""


def routine(w: Writer, pad: str) -> str:
    """One routine; returns the expression that holds its result."""
    return w.pick(ROUTINES)(w, pad)
