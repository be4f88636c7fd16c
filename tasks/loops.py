"""Tasks of loops."""

from .task import Task, Template

FOR_WHILE = Task(
    name="for_while",
    description="after a loop's first name: in for a for loop, a colon and a line break for a while loop",
    answers=(" in", ":\n"),
    main=(
        Template("{short}<<for|while>> {name}", "<< {name2}:\n|>>    pass\n"),
        Template("{short}def {function}({name2}):\n    <<for|while>> {name}", "<< {name2}:\n|>>        pass\n"),
    ),
    shifted=(
        Template(
            "{top}class {Class}:\n    def {function}(self):\n{deep}        <<for|while>> {name}",
            "<< {name2}:\n|>>            pass\n",
        ),
        Template(
            "{top}try:\n{body}    <<for|while>> {name}",
            "<< {name2}:\n|>>        pass\nexcept ValueError:\n    pass\n",
        ),
        Template("{top}if {condition}:\n{body}    <<for|while>> {name}", "<< {name2}:\n|>>        pass\n"),
    ),
)

# The last space of an indentation belongs to the token of the word after it, so 7 and 11 spaces are the answers.
INDENT_FOR = Task(
    name="indent_for",
    description="the indentation after a for line: four spaces deeper than the line",
    answers=("       ", "           "),
    main=(
        Template(
            "{top}def {function}({names}):\n{body}    if {condition}:\n        {function2}({name})\n"
            "<<    |        >>for {name2} in {name3}:\n",
            " pass\n",
        ),
        Template(
            "{top}def {function}({names}):\n{body}    while {name}:\n        {name2} = {number}\n"
            "<<    |        >>for {name3} in range({name2}):\n",
            " pass\n",
        ),
    ),
    shifted=(
        Template(
            "{top}class {Class}:\n{body}    def {function}(self):\n        {name} = {number}\n"
            "<<    |        >>for {name2} in {name3}:\n",
            " pass\n",
        ),
        Template(
            "{top}with {name} as {name2}:\n{body}    for {name3} in {name2}:\n        del {name3}\n"
            "<<    |        >>for {name4} in {name5}:\n",
            " pass\n",
        ),
    ),
)

ENUMERATE_RANGE = Task(
    name="enumerate_range",
    description="after for ... in: enumerate for two loop variables, range for one",
    answers=(" enumerate", " range"),
    main=(
        Template("{top}for {word}<<, {word2}|_{word2}_{suffix}>> in", "({name}):\n    pass\n"),
        Template("{top}for {word}<<, {word2}|_{digit}>> in", "({name}):\n    pass\n"),
        Template(
            "{top}def {function}({name}):\n{body}    for {word}<<, {word2}|_{digit}>> in", "({name}):\n        pass\n"
        ),
    ),
    shifted=(
        Template(
            "{top}class {Class}:\n    def {function}(self):\n{deep}        for {word}<<, {word2}|_{digit}>> in",
            "(self):\n            pass\n",
        ),
        Template(
            "{top}if {condition}:\n{body}    for {word}<<, {word2}|_{word2}_{suffix}>> in", "({name}):\n        pass\n"
        ),
        Template("{top}{name} = [{word3} for {word}<<, {word2}|_{digit}>> in", "({name2})]\n"),
    ),
)

WHILE_RETURN_TRUE = Task(
    name="while_return_true",
    description="after while True a colon and a line break, after return True the line break alone",
    answers=(":\n", "\n"),
    main=(
        Template("{top}def {function}({names}):\n{body}    <<while|return>> True", "<<        break\n|>>"),
        Template(
            "{top}def {function}({names}):\n    if {condition}:\n{deep}        <<while|return>> True",
            "<<            break\n|>>",
        ),
    ),
    shifted=(
        Template(
            "{top}class {Class}:\n    def {function}(self):\n{deep}        <<while|return>> True",
            "<<            break\n|>>",
        ),
        Template(
            "{top}def {function}({names}):\n    for {name} in {name2}:\n{deep}        <<while|return>> True",
            "<<            break\n|>>",
        ),
    ),
)

TASKS = (FOR_WHILE, INDENT_FOR, ENUMERATE_RANGE, WHILE_RETURN_TRUE)
