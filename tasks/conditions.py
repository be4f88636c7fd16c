"""Tasks of conditions and assignments."""

from .task import Task, Template

ELSE_ELIF = Task(
    name="else_elif",
    description="after else a colon and a line break, after elif a condition: the variable that the if asked about",
    answers=(":\n", " {copy}"),
    main=(
        Template(
            "{top}if {copy} == {number}:\n{body}    {function}({name})\n<<else|elif>>",
            "<<    pass\n| > {number2}:\n    pass\n>>",
        ),
        Template(
            "{top}def {function}({copy}):\n{body}    if {copy} > {number}:\n        {name} = {name2}\n"
            "    <<else|elif>>",
            "<<        pass\n| < {number2}:\n        pass\n>>",
        ),
    ),
    shifted=(
        Template(
            "{top}for {copy} in {name}:\n    if {copy} < {number}:\n{deep}        break\n    <<else|elif>>",
            "<<        pass\n| > {number2}:\n        pass\n>>",
        ),
        Template(
            "{top}class {Class}:\n    def {function}(self, {copy}):\n        if {copy} is {name}:\n"
            "            return {number}\n        <<else|elif>>",
            "<<            pass\n| is {name2}:\n            pass\n>>",
        ),
    ),
)

IF_TERNARY = Task(
    name="if_ternary",
    description="after a condition: a colon and a line break in an if statement, else in a ternary expression",
    answers=(":\n", " else"),
    main=(
        Template(
            "{top}def {function}({names}):\n{body}    <<if {name} and|return {name} if>> {condition}",
            "<<        pass\n| {name2}\n>>",
        ),
        Template(
            "{top}def {function}({names}):\n{body}    <<if not {name} or|{word} = {name} if>> {condition}",
            "<<        pass\n| {name2}\n>>",
        ),
        Template(
            "{top}<<if not {name} and|{word} = {name} if>> {condition}",
            "<<    pass\n| {name2}\n>>",
        ),
    ),
    shifted=(
        Template(
            "{top}class {Class}:\n    def {function}(self):\n{deep}"
            "        <<if {name} or|yield {name} if>> {condition}",
            "<<            pass\n| {name2}\n>>",
        ),
        Template(
            "{top}for {name} in {name2}:\n{body}    <<if not {name} and|{word} = {name} if>> {condition}",
            "<<        pass\n| {name3}\n>>",
        ),
    ),
)

IF_EQUALS = Task(
    name="if_equals",
    description="after a variable: == in the condition of an if, = in an assignment",
    answers=(" ==", " ="),
    main=(
        Template(
            "{top}def {function}({names}):\n{body}    <<if |{word2}.>>{word}",
            "<< {number}:\n        pass\n| {number}\n>>",
        ),
        Template(
            "{top}class {Class}:\n    def {function}(self):\n{deep}        <<if |self.>>{word}",
            "<< {number}:\n            pass\n| {number}\n>>",
        ),
        Template(
            "{top}def {function}({names}):\n{body}    <<if |{word2}.>>{word}.{word3}",
            "<< {name}:\n        pass\n| {name}\n>>",
        ),
        Template(
            "{top}def {function}({names}):\n{body}    <<if not|{letter},>> {word}",
            "<< {name}:\n        pass\n| {name}\n>>",
        ),
    ),
    shifted=(
        Template("{top}<<if |{word2}.>>{word}", "<< {number}:\n    pass\n| {number}\n>>"),
        Template(
            "{top}for {name} in {name2}:\n{body}    <<if |{name}.>>{word}.{word2}",
            "<< {number}:\n        pass\n| {number}\n>>",
        ),
        Template(
            "{top}while {condition}:\n{body}    <<if |{word2}.>>{word}", "<< {number}:\n        pass\n| {number}\n>>"
        ),
        Template(
            "{top}try:\n{body}    <<if not|{letter},>> {name}",
            "<< {name2}:\n        pass\n| {name2}\n>>finally:\n    pass\n",
        ),
    ),
)

VAR_IF = Task(
    name="var_if",
    description="after True or False: a colon and a line break in a condition with ==, the line break in an assignment",
    answers=(":\n", "\n"),
    main=(
        Template(
            "{top}def {function}({names}):\n{body}    <<if {word} ==|{word2}.{word} =>> {boolean}",
            "<<        pass\n|>>",
        ),
        Template(
            "{top}class {Class}:\n    def {function}(self):\n{deep}        <<if {word} ==|self.{word} =>> {boolean}",
            "<<            pass\n|>>",
        ),
        Template("{top}<<if {word}.{word3} ==|{word2}.{word}.{word3} =>> {boolean}", "<<    pass\n|>>"),
        Template(
            "{top}def {function}({names}):\n{body}    <<if not {word} ==|{letter} = {word} =>> {boolean}",
            "<<        pass\n|>>",
        ),
    ),
    shifted=(
        Template(
            "{top}for {name} in {name2}:\n{body}    <<if {word} ==|{word2}.{word} =>> {boolean}", "<<        pass\n|>>"
        ),
        Template(
            "{top}try:\n{body}    <<while {word} ==|{word2}.{word} =>> {boolean}",
            "<<        pass\n|>>except ValueError:\n    pass\n",
        ),
        Template(
            "{top}if {condition}:\n{body}    <<if not {word} ==|{letter} = {word} =>> {boolean}", "<<        pass\n|>>"
        ),
    ),
)

TASKS = (ELSE_ELIF, IF_TERNARY, IF_EQUALS, VAR_IF)
