"""Tasks of functions and files."""

from .task import Task, Template, family

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
    selection=(
        family(
            "nested",
            Template(
                "{top}class {Class}({Class2}):\n    def {function}(self, {name2}, {word}<<=None|_{suffix}>>, {name}",
                "<<):\n|>>        pass\n",
            ),
            Template(
                "{top}def {function2}({names}):\n{body}    def {function}({word}<<=None|_{suffix}>>, {name}",
                "<<):\n|>>        pass\n",
            ),
        ),
        family(
            "finished",
            Template(
                "{top}def {function2}({name2}=None):\n    pass\n\ndef {function}({word}<<=None|_{suffix}>>, {name}",
                "<<):\n|>>    pass\n",
            ),
            Template(
                "{top}def {function2}({name2}):\n    pass\n\ndef {function}({word}<<=None|_{suffix}>>, {name}",
                "<<):\n|>>    pass\n",
            ),
            Template(
                "{name2} = {function2}({name3}, {name4}=None)\n{top}def {function}({word}<<=None|_{suffix}>>, {name}",
                "<<):\n|>>    pass\n",
            ),
        ),
    ),
    unseen=(
        family(
            "assigned",
            Template(
                "{top}{name2}.{name3} = None\ndef {function}({word}<<=None|_{suffix}>>, {name}", "<<):\n|>>    pass\n"
            ),
            Template(
                "{top}{function2}({name2}=None, {name3}=None)\ndef {function}({word}<<=None|_{suffix}>>, {name}",
                "<<):\n|>>    pass\n",
            ),
        ),
        family(
            "inner",
            Template(
                "{short}def {function2}({name2}=None, {name3}=None):\n"
                "    def {function}({word}<<=None|_{suffix}>>, {name}",
                "<<):\n|>>        pass\n",
            ),
            Template(
                "{short}def {function2}({name2}, {name3}):\n    def {function}({word}<<=None|_{suffix}>>, {name}",
                "<<):\n|>>        pass\n",
            ),
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
    selection=(
        family(
            "nested",
            Template(
                "{top}for {name2} in {name3}:\n{body}    <<{word2} = [|class {Class}:>>\n        <<lambda|def>> {name}",
                "<< {name},\n    ]\n|self):\n            pass\n>>",
            ),
            Template(
                "{top}while {condition}:\n{body}    <<{word2} = [|class {Class}:>>\n        <<lambda|def>> {name}",
                "<< {name},\n    ]\n|self):\n            pass\n>>",
            ),
        ),
        family(
            "finished",
            Template(
                "{name2} = lambda {name3}: {name3}\n{top}<<{word2} = [|class {Class}:>>\n    <<lambda|def>> {name}",
                "<< {name},\n]\n|self):\n        pass\n>>",
            ),
            Template(
                "def {function}({name3}):\n    return {name3}\n\n"
                "{top}<<{word2} = [|class {Class}:>>\n    <<lambda|def>> {name}",
                "<< {name},\n]\n|self):\n        pass\n>>",
            ),
        ),
    ),
    unseen=(
        family(
            "arguments",
            Template(
                "{top}{name2} = {function}({name3}, key=lambda {name4}: {name4})\n"
                "<<{word2} = [|class {Class}:>>\n    <<lambda|def>> {name}",
                "<< {name},\n]\n|self):\n        pass\n>>",
            ),
            Template(
                "{top}{function}(lambda: {name2})\n<<{word2} = [|class {Class}:>>\n    <<lambda|def>> {name}",
                "<< {name},\n]\n|self):\n        pass\n>>",
            ),
        ),
        family(
            "methods",
            Template(
                "{top}class {Class2}:\n    def {function}(self, {name2}):\n        return {name2}\n"
                "\n<<{word2} = [|class {Class}:>>\n    <<lambda|def>> {name}",
                "<< {name},\n]\n|self):\n        pass\n>>",
            ),
            Template(
                "{top}def {function}({name2}):\n    return lambda {name3}: {name3}\n\n"
                "<<{word2} = [|class {Class}:>>\n    <<lambda|def>> {name}",
                "<< {name},\n]\n|self):\n        pass\n>>",
            ),
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
    selection=(
        family(
            "nested",
            Template(
                "{top}if {condition}:\n{body}    <<with {word},|{letter}.{word} =>> open({name}",
                "<< as {name2}:\n        pass\n|>>",
            ),
            Template(
                "{top}try:\n{body}    <<with {word},|{letter}.{word} =>> open({name}",
                "<< as {name2}:\n        pass\n|>>finally:\n    pass\n",
            ),
        ),
        family(
            "finished",
            Template(
                "with open({name3}) as {name4}:\n    {function}({name4})\n"
                "{short}<<with {word},|{letter}.{word} =>> open({name}",
                "<< as {name2}:\n    pass\n|>>",
            ),
            Template(
                "{name3} = open({name4})\n{short}<<with {word},|{letter}.{word} =>> open({name}",
                "<< as {name2}:\n    pass\n|>>",
            ),
        ),
    ),
    unseen=(
        family(
            "within",
            Template(
                "{top}with {name3} as {name4}:\n{body}    <<with {word},|{letter}.{word} =>> open({name}",
                "<< as {name2}:\n        pass\n|>>",
            ),
            Template(
                "{top}with open({name3}) as {name4}:\n{body}    <<with {word},|{letter}.{word} =>> open({name}",
                "<< as {name2}:\n        pass\n|>>",
            ),
        ),
        family(
            "calls",
            Template(
                "{top}{function}(open({name3}))\n<<with {word},|{letter}.{word} =>> open({name}",
                "<< as {name2}:\n    pass\n|>>",
            ),
            Template(
                "{top}def {function}({names}):\n    return open({name3})\n\n"
                "<<with {word},|{letter}.{word} =>> open({name}",
                "<< as {name2}:\n    pass\n|>>",
            ),
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
    selection=(
        family(
            "nested",
            Template(
                '{top}for {name} in {name2}:\n{body}    with open(<<input|output>>_{word}, "',
                '") as {name3}:\n        pass\n',
            ),
            Template("{top}if {condition}:\n{body}    {name} = open(<<source|target>>_{word}, '", "')\n"),
        ),
        family(
            "finished",
            Template(
                'with open(output_{word2}, "w") as {name2}:\n    pass\n{short}with open(<<input|output>>_{word}, "',
                '") as {name}:\n    pass\n',
            ),
            Template(
                'with open(input_{word2}, "r") as {name2}:\n    pass\n{short}with open(<<input|output>>_{word}, "',
                '") as {name}:\n    pass\n',
            ),
            Template("{name2} = open({word2}_input, 'r')\n{short}{name} = open({word}_<<input|output>>, '", "')\n"),
            Template("{name2} = open({word2}_output, 'w')\n{short}{name} = open({word}_<<input|output>>, '", "')\n"),
        ),
    ),
    unseen=(
        family(
            "both",
            Template(
                '{top}def {function}(input_{word}, output_{word}):\n{body}    with open(<<input|output>>_{word}, "',
                '") as {name}:\n        pass\n',
            ),
            Template(
                "{top}def {function}(target_{word}, source_{word}):\n"
                "{body}    {name} = open(<<source|target>>_{word}, '",
                "')\n",
            ),
        ),
        family(
            "renamed",
            Template("{top}{name} = source_{word2}\n{name2} = open(<<source|target>>_{word}, '", "')\n"),
            Template("{top}{name} = target_{word2}\n{name2} = open(<<source|target>>_{word}, '", "')\n"),
            Template('{top}{function}(input_{word2})\n{name2} = open(<<input|output>>_{word}, "', '")\n'),
            Template('{top}{function}(output_{word2})\n{name2} = open(<<input|output>>_{word}, "', '")\n'),
        ),
    ),
)

TASKS = (FINAL_KWARG, LAMBDA_FUNC, WITH_AS, WITH_OPEN)
