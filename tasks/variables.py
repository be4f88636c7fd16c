"""Tasks in which a variable's name or first value decides."""

from tasks.task import Task, Template

SET_OR_STRING = Task(
    name="set_or_string",
    description="go on with .add for a variable that began as set(), with += for one that began as an empty string",
    answers=(".add", " +="),
    main=(
        Template(
            '{top}def {function}({name}):\n{body}    {name2} = <<set()|"">>\n{body2}'
            "    for {name3} in {name}:\n        {name2}",
            "<<({name3})| {name3}>>\n",
        ),
        Template(
            '{top}{name} = <<set()|"">>\n{top2}for {name2} in {name3}:\n    {name}',
            "<<({name2})| {name2}>>\n",
        ),
    ),
    shifted=(
        Template(
            '{top}{name} = <<set()|"">>\n{top2}while {condition}:\n{body}    {name}',
            "<<({name2})| {name2}>>\n",
        ),
        Template(
            '{top}class {Class}:\n    def {function}(self, {name2}):\n{deep}        {name} = <<set()|"">>\n{deep2}'
            "        with {name2}:\n            {name}",
            "<<({name2})| {name2}>>\n",
        ),
    ),
)

SET_OR_STRING_FIXEDVARNAME = Task(
    name="set_or_string_fixedvarname",
    description="as set_or_string, with a variable that is always called current",
    answers=(".add", " +="),
    main=(
        Template(
            '{top}def {function}({name}):\n{body}    current = <<set()|"">>\n{body2}'
            "    for {name3} in {name}:\n        current",
            "<<({name3})| {name3}>>\n",
        ),
        Template(
            '{top}current = <<set()|"">>\n{top2}for {name2} in {name3}:\n    current',
            "<<({name2})| {name2}>>\n",
        ),
    ),
    shifted=(
        Template(
            '{top}current = <<set()|"">>\n{top2}while {condition}:\n{body}    current',
            "<<({name2})| {name2}>>\n",
        ),
        Template(
            '{top}class {Class}:\n    def {function}(self, {name2}):\n{deep}        current = <<set()|"">>\n{deep2}'
            "        with {name2}:\n            current",
            "<<({name2})| {name2}>>\n",
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
