"""Tasks in which a variable's name or first value decides."""

from .task import Family, Task, Template, family

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
    selection=(
        family(
            "nested",
            Template(
                'def {function}({name6}):\n{body}    {name} = <<set()|"">>\n{body2}    if {condition}:\n        {name}',
                "<<({name2})| {name2}>>\n",
            ),
            Template(
                '{top}{name} = <<set()|"">>\n{top2}for {name3} in {name4}:\n    if {name3}:\n        {name}',
                "<<({name2})| {name2}>>\n",
            ),
        ),
        family(
            "finished",
            Template(
                '{top}{name4} = set()\n{name} = <<set()|"">>\n{top2}for {name2} in {name3}:\n    {name}',
                "<<({name2})| {name2}>>\n",
            ),
            Template(
                '{top}{name4} = ""\n{name} = <<set()|"">>\n{top2}for {name2} in {name3}:\n    {name}',
                "<<({name2})| {name2}>>\n",
            ),
            Template(
                '{top}{name} = <<set()|"">>\n{name4} = ""\n{name5} = set()\n{top2}for {name2} in {name3}:\n    {name}',
                "<<({name2})| {name2}>>\n",
            ),
            Template(
                '{top}{name} = <<set()|"">>\n{name4} = set()\n{name5} = ""\n{top2}for {name2} in {name3}:\n    {name}',
                "<<({name2})| {name2}>>\n",
            ),
        ),
    ),
    unseen=(
        family(
            "used",
            Template(
                '{name4} = set()\n{name4}.add({name5})\n{name} = <<set()|"">>\n'
                "{top2}for {name2} in {name3}:\n    {name}",
                "<<({name2})| {name2}>>\n",
            ),
            Template(
                '{name4} = ""\n{name4} += {name5}\n{name} = <<set()|"">>\n{top2}for {name2} in {name3}:\n    {name}',
                "<<({name2})| {name2}>>\n",
            ),
        ),
        family(
            "arguments",
            Template(
                '{top}{name} = <<set()|"">>\n{name4} = {function}(set())\n{top2}while {condition}:\n    {name}',
                "<<({name2})| {name2}>>\n",
            ),
            Template(
                '{top}{name} = <<set()|"">>\n{name4} = {function}("")\n{top2}while {condition}:\n    {name}',
                "<<({name2})| {name2}>>\n",
            ),
        ),
    ),
)

# With a name that is always one token, the line with set() would always be the longer one, as "" has a token less. So
# half of the strings are " ", which has a token more under the stored tokenizers: longer or shorter tells nothing,
# though the exact length does.
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
    selection=(
        Family(
            "nested",
            _fixed(
                (
                    "def {function}({name6}):\n{body}    current = <<set()|{string}>>\n"
                    "{body2}    if {condition}:\n        current",
                    "{top}current = <<set()|{string}>>\n{top2}for {name} in {name2}:\n    if {name}:\n        current",
                )
            ),
        ),
        Family(
            "finished",
            _fixed(
                (
                    "{top}{name} = set()\ncurrent = <<set()|{string}>>\n{top2}for {name2} in {name3}:\n    current",
                    "{top}{name} = {string}\ncurrent = <<set()|{string}>>\n{top2}for {name2} in {name3}:\n    current",
                    "{top}current = <<set()|{string}>>\n{name} = {string}\n{name5} = set()\n"
                    "{top2}for {name2} in {name3}:\n    current",
                    "{top}current = <<set()|{string}>>\n{name} = set()\n{name5} = {string}\n"
                    "{top2}for {name2} in {name3}:\n    current",
                )
            ),
        ),
    ),
    unseen=(
        Family(
            "used",
            _fixed(
                (
                    "{name} = set()\n{name}.add({name2})\ncurrent = <<set()|{string}>>\n"
                    "{top2}for {name3} in {name5}:\n    current",
                    "{name} = {string}\n{name} += {name2}\ncurrent = <<set()|{string}>>\n"
                    "{top2}for {name3} in {name5}:\n    current",
                )
            ),
        ),
        Family(
            "arguments",
            _fixed(
                (
                    "{top}current = <<set()|{string}>>\n{name} = {function}(set())\n"
                    "{top2}while {condition}:\n    current",
                    "{top}current = <<set()|{string}>>\n{name} = {function}({string})\n"
                    "{top2}while {condition}:\n    current",
                )
            ),
        ),
    ),
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
    selection=(
        family(
            "longer",
            Template(
                "{top}class {Class}:\n    def __init__(self, {copy3}, {copy}, {copy4}, {copy2}):\n"
                "        self.{copy4} = {copy4}\n        self.<<{copy}|{copy2}>> =",
                "\n",
            ),
            Template(
                "{top}class {Class}:\n    def __init__(self, {copy2}, {copy3}, {copy}):\n"
                "{deep}        self.<<{copy}|{copy2}>> =",
                "\n",
            ),
        ),
        family(
            "mentioned",
            Template(
                "{top}class {Class}:\n    def __init__(self, {copy}, {copy2}):\n"
                "        {function}({copy})\n        self.<<{copy}|{copy2}>> =",
                "\n",
            ),
            Template(
                "{top}class {Class}:\n    def __init__(self, {copy}, {copy2}):\n"
                "        {function}({copy2})\n        self.<<{copy}|{copy2}>> =",
                "\n",
            ),
            Template(
                "{top}class {Class}:\n    def __init__(self, {copy}, {copy2}):\n"
                "        if {copy2}:\n            {function}({name})\n"
                "        self.<<{copy}|{copy2}>> =",
                "\n",
            ),
        ),
    ),
    unseen=(
        family(
            "defaults",
            Template(
                "{top}class {Class}:\n    def __init__(self, {copy}=None, {copy2}=None):\n"
                "{deep}        self.<<{copy}|{copy2}>> =",
                "\n",
            ),
            Template(
                "{top}class {Class}:\n"
                "    def __init__(self, {copy}, {copy2}={number}, {copy3}=None):\n"
                "        self.{copy3} = {copy3}\n        self.<<{copy}|{copy2}>> =",
                "\n",
            ),
        ),
        family(
            "repeated",
            Template(
                "{top}class {Class}:\n    def __init__(self, {copy}, {copy2}):\n"
                "        self.{copy3} = {copy2}\n        self.<<{copy}|{copy2}>> =",
                "\n",
            ),
            Template(
                "{top}class {Class}:\n    def __init__(self, {copy}, {copy2}):\n"
                "        {copy3} = {copy}\n        self.<<{copy}|{copy2}>> =",
                "\n",
            ),
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
    selection=(
        family(
            "nested",
            Template(
                "{top}def {function}({copy}, {copy2}):\n    if {condition}:\n"
                "{deep}        <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
                "\n",
            ),
            Template(
                "{top}for {name} in {name2}:\n{body}    <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,", "\n"
            ),
        ),
        family(
            "finished",
            Template(
                "{copy3}, {copy4} = {copy4}, {copy3}\n{top}while {condition}:\n"
                "    <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
                "\n",
            ),
            Template(
                "{top}def {function}({copy}, {copy2}, {copy3}):\n"
                "    {copy3}, {copy} = {copy}, {copy3}\n"
                "    <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
                "\n",
            ),
            Template(
                "{top}def {function}({copy}, {copy2}, {copy3}):\n"
                "    {copy2}, {copy3} = {copy3}, {copy2}\n"
                "    <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
                "\n",
            ),
        ),
    ),
    unseen=(
        family(
            "mentioned",
            Template(
                "{top}if {condition}:\n    {function}({copy}, {copy2})\n"
                "    <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
                "\n",
            ),
            Template(
                "{top}if {condition}:\n    {function}({copy2}, {copy})\n"
                "    <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
                "\n",
            ),
        ),
        family(
            "tuples",
            Template(
                "{top}def {function}({names}):\n    {copy}, {copy2} = {name}, {name2}\n"
                "{body}    <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
                "\n",
            ),
            Template(
                "{top}def {function}({names}):\n    {copy2}, {copy} = {number}, {number2}\n"
                "{body}    <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
                "\n",
            ),
            Template(
                "{top}def {function}({names}):\n    {copy3}, {copy4} = {copy2}, {copy}\n"
                "{body}    <<{copy}, {copy2} = {copy2}|{copy2}, {copy} = {copy}>>,",
                "\n",
            ),
        ),
    ),
)

TASKS = (SET_OR_STRING, SET_OR_STRING_FIXEDVARNAME, CLASS_INIT, VAR_SWAP)
