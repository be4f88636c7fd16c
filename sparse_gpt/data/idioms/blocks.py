"""Compound statements: conditions, loops, context managers, exceptions. Nested up to three levels."""

from sparse_gpt.data.idioms import words
from sparse_gpt.data.idioms.expressions import COMPARISONS, condition, literal, message, word
from sparse_gpt.data.idioms.statements import any_list, assign_dict, small
from sparse_gpt.data.idioms.writer import INDENT, Writer


def body(w: Writer, pad: str, depth: int) -> None:
    """One to three statements, of which some are blocks again while `depth` allows it."""
    for _ in range(w.pick((1, 1, 1, 2, 2, 3))):
        if depth and w.chance(28):
            block(w, pad, depth - 1)
        else:
            small(w, pad)


def if_block(w: Writer, pad: str, depth: int) -> None:
    """if, with up to two elif and mostly an else."""
    # Everything a later test needs must be bound before the first one, so all tests are drawn here.
    tests = [condition(w, pad) for _ in range(w.pick((1, 1, 1, 2, 2, 3)))]
    inner = pad + INDENT
    keyword = "if"
    for test in tests:
        w.lines.append(f"{pad}{keyword} {test}:\n")
        body(w, inner, depth)
        keyword = "elif"
    if w.chance(50):
        w.lines.append(f"{pad}else:\n")
        body(w, inner, depth)


def for_block(w: Writer, pad: str, depth: int) -> None:
    """for over a list, a range, both at once, or the pairs of a dict."""
    scope = w.scope
    form = w.below(16)
    numbers, texts = len(scope.numbers), len(scope.texts)
    if form < 5:
        member, name, is_number = any_list(w, pad)
        w.lines.append(f"{pad}for {member} in {name}:\n")
        new = ([member], []) if is_number else ([], [member])
    elif form < 9:
        position = w.pick(words.POSITIONS if w.draw() & 1 else words.LETTERS)
        limit = w.pick(scope.numbers) if scope.numbers and w.chance(25) else str(literal(w))
        form = w.below(4)
        if form == 0:
            limit = f"{w.below(3)}, {limit}"
        elif form == 1:
            limit = f"len({any_list(w, pad)[1]})"
        w.lines.append(f"{pad}for {position} in range({limit}):\n")
        new = ([position], [])
    elif form < 14:
        position = w.pick(words.POSITIONS)
        member, name, is_number = any_list(w, pad)
        if member == position:
            member = "value"
        w.lines.append(f"{pad}for {position}, {member} in enumerate({name}):\n")
        new = ([position, member], []) if is_number else ([position], [member])
    else:
        if not scope.dicts:
            assign_dict(w, pad)
        w.lines.append(f"{pad}for key, value in {w.pick(scope.dicts)}.items():\n")
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
    name = w.text(pad)
    target = w.fresh_value()
    w.lines.append(f"{pad}try:\n{inner}{target} = int({name})\n{pad}except {w.pick(words.ERRORS)}:\n")
    w.scope.numbers.append(target)
    if w.draw() & 1:
        w.lines.append(f"{inner}print({message(w)})\n")
    w.lines.append(f"{inner}{target} = {literal(w)}\n")


def file_name(w: Writer, stems: tuple[str, ...]) -> str:
    """A quoted file name."""
    quote = w.quote()
    return f"{quote}{w.pick(stems)}{w.pick(words.SUFFIXES)}{quote}"


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
            w.lines.append(f"{pad}for {member} in {name}:\n{pad}    {handle}.write({shown})\n")
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
    """A file opened for what its name says."""
    write = bool(w.draw() & 1)
    form = w.below(4)
    if form == 0:
        open_file(w, pad, file_name(w, words.NEUTRAL_STEMS), False, depth, mode=w.chance(40))
    elif form == 1:
        open_file(w, pad, file_name(w, words.OUTPUT_STEMS if write else words.INPUT_STEMS), write, depth)
    else:
        path = w.fresh(words.OUTPUT_NAMES if write else words.INPUT_NAMES)
        stems = words.NEUTRAL_STEMS if w.chance(60) else words.OUTPUT_STEMS if write else words.INPUT_STEMS
        w.lines.append(f"{pad}{path} = {file_name(w, stems)}\n")
        open_file(w, pad, path, write, depth, mode=w.chance(85))


BLOCKS = (if_block,) * 7 + (for_block,) * 8 + (while_block,) * 5 + (try_block,) * 1 + (with_block,) * 3
"""Compound statements by weight."""


def block(w: Writer, pad: str, depth: int) -> None:
    """One compound statement whose bodies may nest `depth` levels further."""
    w.pick(BLOCKS)(w, pad, depth)
