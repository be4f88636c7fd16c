"""Tasks in which a variable's name or first value decides."""

from .task import Task, Template

SET_OR_STRING = Task(
    name="set_or_string",
    description=".add after a variable that began as set(), += after one that began as a string",
    answers=(".add", " +="),
    main=(
        Template(
            '{top}def {function}({name}):\n{body}    {name2} = <<set()|"">>\n{body2}{body3}'
            "    for {name3} in {name}:\n        {name2}",
            "<<({name3})| {name3}>>\n",
        ),
        Template(
            '{top}{name} = <<set()|"">>\n{top2}{top3}for {name2} in {name3}:\n    {name}',
            "<<({name2})| {name2}>>\n",
        ),
    ),
    shifted=(
        Template(
            '{top}{name} = <<set()|"">>\n{top2}{top3}while {condition}:\n{body}    {name}',
            "<<({name2})| {name2}>>\n",
        ),
        Template(
            '{top}class {Class}:\n    def {function}(self, {name2}):\n{deep}        {name} = <<set()|"">>\n{deep2}'
            "        with {name2}:\n            {name}",
            "<<({name2})| {name2}>>\n",
        ),
    ),
    same_length=False,  # set() is two tokens, "" is one
)

# With a name that is always one token, the length of its line tells set() from "": half of the strings have a space
# (two tokens, as set() has), so that it does not.
_FIXED_MAIN = (
    "{top}def {function}({name}):\n{body}    current = <<set()|{string}>>\n{body2}{body3}"
    "    for {name3} in {name}:\n        current",
    "{top}current = <<set()|{string}>>\n{top2}{top3}for {name3} in {name}:\n    current",
)
_FIXED_SHIFTED = (
    "{top}current = <<set()|{string}>>\n{top2}{top3}while {condition}:\n{body}    current",
    "{top}class {Class}:\n    def {function}(self, {name2}):\n{deep}        current = <<set()|{string}>>\n{deep2}"
    "        with {name2}:\n            current",
)


def _fixed(prompts: tuple[str, ...]) -> tuple[Template, ...]:
    strings = ('""', '" "')
    return tuple(
        Template(prompt.replace("{string}", string), "<<({name4})| {name4}>>\n")
        for prompt in prompts
        for string in strings
    )


SET_OR_STRING_FIXEDVARNAME = Task(
    name="set_or_string_fixedvarname",
    description="as set_or_string, with a variable that is always called current",
    answers=(".add", " +="),
    main=_fixed(_FIXED_MAIN),
    shifted=_fixed(_FIXED_SHIFTED),
    same_length=False,  # set() is two tokens, "" is one
)

CLASS_INIT = Task(
    name="class_init",
    description="in lines such as self.size = size, the right one of the parameters",
    answers=(" {copy}", " {copy2}"),
    main=(
        Template(
            "{top}class {Class}:\n    def __init__(self, {copy3}, {copy}, {copy2}):\n        self.{copy3} = {copy3}\n"
            "        self.<<{copy}|{copy2}>> =",
            "\n",
        ),
        Template(
            "{top}class {Class}:\n    def __init__(self, {copy}, {copy2}, {copy3}):\n        self.{copy3} = {copy3}\n"
            "        self.<<{copy}|{copy2}>> =",
            "\n",
        ),
        Template(
            "{top}class {Class}:\n    def __init__(self, {copy}, {copy2}):\n{deep}        self.<<{copy}|{copy2}>> =",
            "\n",
        ),
    ),
    shifted=(
        Template(
            "{top}class {Class}({Class2}):\n    def __init__(self, {copy}, {copy3}, {copy2}):\n"
            "        super().__init__({copy3})\n        self.<<{copy}|{copy2}>> =",
            "\n",
        ),
        Template(
            "{top}class {Class}:\n    def {function}(self, {copy}, {copy2}):\n        if {condition}:\n"
            "            self.<<{copy}|{copy2}>> =",
            "\n",
        ),
    ),
)

VAR_SWAP = Task(
    name="var_swap",
    description="complete a swap: after x, y = y, comes x",
    answers=(" {copy}", " {copy2}"),
    main=(
        Template(
            "{top}def {function}({copy}, {copy2}):\n{body}    <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
            "\n",
        ),
        Template(
            "{top}{copy} = {number}\n{copy2} = {number2}\n{top2}"
            "if {condition}:\n    <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
            "\n",
        ),
        Template("{top}while {condition}:\n    <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,", "\n"),
    ),
    shifted=(
        Template(
            "{top}class {Class}:\n    def {function}(self):\n{deep}"
            "        <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
            "\n",
        ),
        Template(
            "{top}for {copy} in {name}:\n    for {copy2} in {copy}:\n"
            "        <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
            "\n",
        ),
    ),
)

TASKS = (SET_OR_STRING, SET_OR_STRING_FIXEDVARNAME, CLASS_INIT, VAR_SWAP)
