"""Compound statements: conditions, loops, context managers, exceptions. Nested up to three levels."""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.containers import any_dict, any_list, loop_over
from sparse_gpt.data.idioms.expressions import BOOLEANS, COMPARISONS, comparison, condition, literal, message, word
from sparse_gpt.data.idioms.statements import small
from sparse_gpt.data.idioms.writer import INDENT, Writer


def body(w: Writer, pad: str, depth: int) -> None:
    """One to three statements, of which some are blocks again while `depth` allows it.

    What they bind is not spoken of after the block, where it need not exist.
    """
    marks = w.scope.mark()
    for _ in range(w.pick((1, 1, 1, 1, 2, 2, 3))):
        if depth and w.chance(30):
            block(w, pad, depth - 1)
        else:
            small(w, pad)
    w.scope.back_to(marks)


def if_block(w: Writer, pad: str, depth: int) -> None:
    """if, with up to two elif and mostly an else."""
    # Everything a later test needs must be bound before the first one, so all tests are drawn here. Later tests
    # mostly ask about the same value as the first.
    count = w.pick((1, 1, 1, 2, 2, 3))
    if count > 1 and w.chance(65):
        name = w.number(pad)
        tests = [comparison(w, name) for _ in range(count)]
    else:
        tests = [condition(w, pad) for _ in range(count)]
    inner = pad + INDENT
    keyword = "if"
    for test in tests:
        w.lines.append(f"{pad}{keyword} {test}:\n")
        body(w, inner, depth)
        keyword = "elif"
    if w.chance(60):
        w.lines.append(f"{pad}else:\n")
        body(w, inner, depth)


def loop_variable(w: Writer) -> str:
    """What counts in a loop over a range: mostly a letter or a short name."""
    if w.chance(30):
        return w.rare_name()
    return w.pick(words.POSITIONS if w.draw() & 1 else words.LETTERS)


def for_block(w: Writer, pad: str, depth: int) -> None:
    """for over a list, a range, both at once, or the pairs of a dict."""
    scope = w.scope
    form = w.below(20)
    if form < 5:
        member, name, is_number = any_list(w, pad)
        w.lines.append(f"{pad}for {member} in {name}:\n")
        new = ([member], []) if is_number else ([], [member])
    elif form < 11:
        position = loop_variable(w)
        limit = w.pick(scope.numbers) if scope.numbers and w.chance(25) else str(literal(w))
        span = w.below(4)
        if span == 0:
            limit = f"{w.below(3)}, {limit}"
        elif span == 1:
            limit = f"len({any_list(w, pad)[1]})"
        w.lines.append(f"{pad}for {position} in range({limit}):\n")
        new = ([position], [])
    elif form < 18:
        member, name, is_number = any_list(w, pad)
        position = w.rare_name() if w.chance(25) else w.pick(words.POSITIONS)
        if position == member:
            position = "i" if member != "i" else "j"
        w.lines.append(f"{pad}for {position}, {member} in enumerate({name}):\n")
        new = ([position, member], []) if is_number else ([position], [member])
    else:
        w.lines.append(f"{pad}for key, value in {any_dict(w, pad)}.items():\n")
        new = ([], ["key", "value"])
    numbers, texts = len(scope.numbers), len(scope.texts)
    # A loop's own variables are what its body should speak of: listed several times, then taken off again.
    scope.numbers += new[0] * 3
    scope.texts += new[1] * 3
    body(w, pad + INDENT, depth)
    del scope.numbers[numbers:], scope.texts[texts:]


def while_block(w: Writer, pad: str, depth: int) -> None:
    """while with a comparison, with a bare name, or without end (left by break or return)."""
    inner = pad + INDENT
    form = w.below(8)
    if form < 3:
        name = w.number(pad)
        rising = w.draw() & 1
        w.lines.append(f"{pad}while {name} {'<' if rising else '>'} {literal(w) + (5 if rising else 0)}:\n")
        body(w, inner, depth)
        w.lines.append(f"{inner}{name} {'+=' if rising else '-='} {w.below(3) + 1}\n")
    elif form < 5:
        if w.draw() & 1:
            name = w.number(pad)
            end = f"{name} -= 1"
        else:
            name = w.flag(pad)
            end = f"{name} = False"
            name += w.pick(("", "", f" == {w.pick(BOOLEANS)}"))
        w.lines.append(f"{pad}while {name}:\n")
        body(w, inner, depth)
        w.lines.append(f"{inner}{end}\n")
    elif form == 5:
        member, name, is_number = any_list(w, pad)
        w.lines.append(f"{pad}while {name}:\n{inner}{member} = {name}.pop()\n")
        (w.scope.numbers if is_number else w.scope.texts).append(member)
        body(w, inner, depth)
    else:
        name = w.number(pad)
        w.lines.append(f"{pad}while True:\n")
        body(w, inner, depth)
        if w.draw() & 1:
            w.lines.append(f"{inner}{name} += 1\n")
        w.lines.append(f"{inner}if {name} {w.pick(COMPARISONS)} {literal(w)}:\n{inner}    break\n")


def try_block(w: Writer, pad: str, depth: int) -> None:
    """try with one except."""
    inner = pad + INDENT
    if w.draw() & 1:
        w.lines.append(f"{pad}try:\n")
        body(w, inner, depth)
        w.lines.append(f"{pad}except {w.pick(words.ERRORS)}:\n{inner}{w.pick(('pass', f'print({message(w)})'))}\n")
        return
    name = w.text(pad)
    target = w.fresh_value()
    w.lines.append(f"{pad}try:\n{inner}{target} = int({name})\n{pad}except {w.pick(words.ERRORS)}:\n")
    w.scope.numbers.append(target)
    if w.draw() & 1:
        w.lines.append(f"{inner}print({message(w)})\n")
    w.lines.append(f"{inner}{target} = {literal(w)}\n")


def file_variable(w: Writer, write: bool) -> str:
    """A name that says what its file is for."""
    kind = w.pick(words.OUTPUT_WORDS if write else words.INPUT_WORDS)
    form = w.below(8)
    if form == 0:
        return f"{kind}file" if kind in ("in", "out") else kind
    part = w.pick(words.FILE_PARTS) if form < 5 else w.rare()
    return f"{kind}_{part}" if w.chance(75) else f"{part}_{kind}"


def quoted_file(w: Writer, stem: str = "") -> str:
    """A quoted file name, of the given stem or of one that says nothing."""
    quote = w.quote()
    return f"{quote}{stem or w.pick(words.NEUTRAL_STEMS)}{w.pick(words.SUFFIXES)}{quote}"


def open_file(w: Writer, pad: str, path: str, write: bool, depth: int, mode: bool = True) -> None:
    """Open `path` by with or by assignment, and read from it or write to it. Without `mode`, Python's default: read."""
    handle = w.fresh(words.FILE_NAMES) if w.chance(70) else "f"
    quote = w.quote()
    rest = f", {quote}{'w' if write else 'r'}{quote}" if mode or write else ""
    if w.draw() & 1:
        w.lines.append(f"{pad}with open({path}{rest}) as {handle}:\n")
        use_file(w, pad + INDENT, handle, write, depth)
    else:
        w.lines.append(f"{pad}{handle} = open({path}{rest})\n")
        use_file(w, pad, handle, write, depth)
        w.lines.append(f"{pad}{handle}.close()\n")


def use_file(w: Writer, pad: str, handle: str, write: bool, depth: int) -> None:
    """The lines that read from or write to an open file."""
    form = w.below(3)
    scope = w.scope
    if write:
        if form == 0:
            member, name, is_number = any_list(w, pad)
            shown = f"str({member})" if is_number else member
            loop_over(w, pad, member, name)
            w.lines.append(f"{pad}    {handle}.write({shown})\n")
        else:
            source = w.pick(scope.texts) if scope.texts and form == 1 else message(w) if w.draw() & 1 else word(w)
            w.lines.append(f"{pad}{handle}.write({source})\n")
        return
    target = w.fresh(("text", "data", "content", "lines", "words"))
    if form == 0:
        w.lines.append(f"{pad}{target} = {handle}.read()\n")
        scope.texts.append(target)
    elif form == 1:
        w.lines.append(f"{pad}{target} = {handle}.readlines()\n")
        scope.text_lists.append(("line", target))
    else:
        w.lines.append(f"{pad}for line in {handle}:\n")
        texts = len(scope.texts)
        scope.texts += ("line", "line", "line")
        body(w, pad + INDENT, min(depth, 1))
        del scope.texts[texts:]


def with_block(w: Writer, pad: str, depth: int) -> None:
    """A file opened for what its name says; without a mode where the name says nothing, or a name bound just before."""
    write = bool(w.draw() & 1)
    form = w.below(6)
    if form in (0, 5):
        path = w.fresh_name(words.PATH_NAMES)
        w.lines.append(f"{pad}{path} = {quoted_file(w)}\n")
        open_file(w, pad, path, False, depth, mode=False)
    elif form == 1:
        open_file(w, pad, quoted_file(w, file_variable(w, write)), write, depth)
    else:
        path = w.fresh((file_variable(w, write),))
        w.lines.append(f"{pad}{path} = {quoted_file(w, '' if w.chance(60) else path)}\n")
        open_file(w, pad, path, write, depth, mode=w.chance(85))


def manager_block(w: Writer, pad: str, depth: int) -> None:
    """A context manager of another kind, alone or before a file."""
    manager = w.helper()
    path = w.fresh_name(words.PATH_NAMES)
    if w.draw() & 1:
        w.lines.append(f"{pad}with {manager}(){w.pick(('', f' as {path}'))}:\n")
        body(w, pad + INDENT, depth)
    else:
        w.lines.append(f"{pad}{path} = {quoted_file(w)}\n{pad}with {manager}(), open({path}) as f:\n")
        use_file(w, pad + INDENT, "f", False, depth)


BLOCKS = (
    (if_block,) * 8
    + (for_block,) * 7
    + (while_block,) * 6
    + (try_block,) * 2
    + (with_block,) * 4
    + (manager_block,) * 1
)
"""Compound statements by weight."""


def block(w: Writer, pad: str, depth: int) -> None:
    """One compound statement whose bodies may nest `depth` levels further."""
    w.pick(BLOCKS)(w, pad, depth)
