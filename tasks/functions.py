"""Tasks of functions and files."""

from .task import Task, Template

FINAL_KWARG = Task(
    name="final_kwarg",
    description="after the last parameter: =None where an earlier one has a default, else ): and a line break",
    answers=("=None", "):\n"),
    main=(
        Template("{top}def {function}({word}<<=None|_{suffix}>>, {name}", "<<):\n|>>    pass\n"),
        Template("{top}def {function}({names}, {word}<<=None|_{suffix}>>, {name}", "<<):\n|>>    pass\n"),
        Template(
            "{top}def {function}({name2}, {word}<<=None|_{suffix}>>, {word2}<<=None|_{suffix2}>>, {name}",
            "<<):\n|>>    pass\n",
        ),
    ),
    shifted=(
        Template(
            "{top}class {Class}:\n{body}    def {function}(self, {word}<<=None|_{suffix}>>, {name}",
            "<<):\n|>>        pass\n",
        ),
        Template(
            "{top}if {condition}:\n{body}    async def {function}({names}, {word}<<=None|_{suffix}>>, {name}",
            "<<):\n|>>        pass\n",
        ),
    ),
)

LAMBDA_FUNC = Task(
    name="lambda_func",
    description="a colon after a lambda's parameter, an opening bracket after a function's name",
    answers=(":", "("),
    main=(
        Template(
            "{top}<<{word2} = [|class {Class}:>>\n    <<lambda|def>> {name}", "<< {name},\n]\n|self):\n        pass\n>>"
        ),
        Template(
            "{top}def {function}({names}):\n{body}    <<{word2} = [|class {Class}:>>\n        <<lambda|def>> {name}",
            "<< {name},\n    ]\n|self):\n            pass\n>>",
        ),
    ),
    shifted=(
        Template(
            "{top}<<{word2}.{function}(|class {Class}:>>\n    <<lambda|def>> {name}",
            "<< {name},\n)\n|self):\n        pass\n>>",
        ),
        Template(
            "{top}if {condition}:\n{body}    <<{word2} += [|class {Class}:>>\n        <<lambda|def>> {name}",
            "<< {name},\n    ]\n|self):\n            pass\n>>",
        ),
    ),
)

# The tokenizer joins a bracket and the line break after it, so that the two lines part there, one token before as.
WITH_AS = Task(
    name="with_as",
    description="after open(path: the bracket alone in a with statement (as follows), elsewhere with the line break",
    answers=(")", ")\n"),
    main=(
        Template("{top}<<with {word},|{word}_{suffix} =>> open({name}", "<< as {name2}:\n    pass\n|>>"),
        Template(
            "{top}def {function}({name}):\n{body}    <<with|return>> open({name}", "<< as {name2}:\n        pass\n|>>"
        ),
        Template(
            "{top}def {function}({name}):\n{body}    <<with {word},|{word}_{suffix} =>> open({name}",
            "<< as {name2}:\n        pass\n|>>",
        ),
    ),
    shifted=(
        Template(
            "{top}class {Class}:\n    def {function}(self, {name}):\n{deep}"
            "        <<with {word},|self.{word} =>> open({name}",
            "<< as {name2}:\n            pass\n|>>",
        ),
        Template(
            "{top}for {name} in {name3}:\n{body}    <<with {word},|{word}.{word2} =>> open({name}, {name5}",
            "<< as {name2}:\n        pass\n|>>",
        ),
    ),
)

WITH_OPEN = Task(
    name="with_open",
    description="the mode in which a file is opened, r or w, by what it is called or what is done with it",
    answers=("r", "w"),
    main=(
        Template('{top}with open(<<input|output>>_{word}, "', '") as {name}:\n    pass\n'),
        Template("{top}with open(<<input|output>>_{word}, '", "') as {name}:\n    pass\n"),
        Template("{top}{name} = open({word}_<<input|output>>, '", "')\n"),
        Template('{top}with open(<<source|target>>_{word}, "', '") as {name}:\n    pass\n'),
        Template(
            "{top}def {function}(<<source|target>>_{word}):\n{body}    with open(<<source|target>>_{word}, '",
            "') as {name}:\n        pass\n",
        ),
    ),
    shifted=(
        Template(
            "{top}def <<read|write>>_{word}({name}):\n{body}    with open({name}, '", "') as {name2}:\n        pass\n"
        ),
        Template(
            '{top}def <<load|save>>_{word}({name}):\n{body}    with open({name}, "', '") as {name2}:\n        pass\n'
        ),
    ),
)

TASKS = (FINAL_KWARG, LAMBDA_FUNC, WITH_AS, WITH_OPEN)
