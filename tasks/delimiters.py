"""Tasks of strings, brackets and braces: how something goes on or closes depends on how it opened."""

from .task import Task, Template, family

SINGLE_DOUBLE_QUOTE = Task(
    name="single_double_quote",
    description="close a string and its call with the quote that opened it: ') or \") and a line break",
    answers=("')\n", '")\n'),
    main=(
        Template("""{short}print(<<'|">>{phrase}"""),
        Template("""{short}{function}(<<'|">>{phrase}"""),
        Template("""{short}{name}.{function}(<<'|">>{phrase}"""),
        Template("""{short}{name} = {function}(<<'|">>{phrase}"""),
    ),
    shifted=(
        Template("""{top}def {function}({names}):\n{body}    return {function2}(<<'|">>{phrase}"""),
        Template("""{top}class {Class}:\n    def {function}(self):\n{deep}        raise ValueError(<<'|">>{phrase}"""),
        Template("""{name} = "{text}"\n{name2} = '{text2}'\n{top}{function}(<<'|">>{phrase}"""),
        Template("""{name} = '{text}'\n{name2} = "{text2}"\n{top}{function}(<<'|">>{phrase}"""),
    ),
    selection=(
        family(
            "nested",
            Template("{top}def {function}({names}):\n{body}    if {condition}:\n        {function2}(<<'|\">>{phrase}"),
            Template("{top}for {name} in {name2}:\n{body}    {name3} = {function}(<<'|\">>{phrase}"),
        ),
        family(
            "finished",
            Template("print(\"{text}\")\nprint('{text2}')\n{short}{function}(<<'|\">>{phrase}"),
            Template("print('{text}')\nprint(\"{text2}\")\n{short}{function}(<<'|\">>{phrase}"),
            Template("{name} = '{text}'\n{name2} = '{text2}'\n{short}{name3} = {function}(<<'|\">>{phrase}"),
            Template('{name} = "{text}"\n{name2} = "{text2}"\n{short}{name3} = {function}(<<\'|">>{phrase}'),
        ),
    ),
    unseen=(
        family(
            "arguments",
            Template('{top}{function}("{text}", <<\'|">>{phrase}'),
            Template("{top}{function}('{text}', <<'|\">>{phrase}"),
        ),
        family(
            "conditions",
            Template("{top}if {name} == '{text}':\n    {name2} = \"{text2}\"\n{body}    print(<<'|\">>{phrase}"),
            Template(
                "{top}while {name} != \"{text}\":\n    {function}('{text2}', '{text3}')\n"
                "{body}    print(<<'|\">>{phrase}"
            ),
            Template('{top}if {name} == "{text}":\n    {name2} = "{text2}"\n{body}    {function}(<<\'|">>{phrase}'),
            Template(
                "{top}while {name} != '{text}':\n    {function}(\"{text2}\", '{text3}')\n"
                "{body}    {function2}(<<'|\">>{phrase}"
            ),
        ),
    ),
)

BRACKET_COUNTING = Task(
    name="bracket_counting",
    description="close a list with ] or ]] and a line break, as deep as it is nested",
    answers=("]\n", "]]\n"),
    main=(
        Template("{short}{name} = <<[|[[>>{items}"),
        Template("{short}{name} = [[{items}<<],|,>> {items2}"),
        Template("{short}{name} = [[{numbers}], <<|[>>{numbers2}"),
    ),
    shifted=(
        Template("{top}def {function}({names}):\n{body}    return <<[|[[>>{items}"),
        Template("{top}for {name} in {name2}:\n{body}    {name}.{word3} = [[{items}<<],|,>> {items2}"),
        Template("{top}if {condition}:\n{body}    {name} += [[{numbers}], <<|[>>{numbers2}"),
    ),
    selection=(
        family(
            "nested",
            Template("{top}class {Class}:\n    def {function}(self):\n{deep}        self.{word} = <<[|[[>>{items}"),
            Template("{top}while {condition}:\n{body}    {name} = [[{items}<<],|,>> {items2}"),
        ),
        family(
            "finished",
            Template("{name2} = [{items2}]\n{short}{name} = <<[|[[>>{items}"),
            Template("{name2} = [[{items2}]]\n{short}{name} = <<[|[[>>{items}"),
            Template("{name2} = [[{numbers3}], [{numbers4}]]\n{short}{name} = [[{numbers}], <<|[>>{numbers2}"),
        ),
    ),
    unseen=(
        family(
            "indexed",
            Template("{top}{name2} = {name3}[{number}]\n{name} = <<[|[[>>{items}"),
            Template("{top}{name2} = {name3}[{number}][{number2}]\n{name} = <<[|[[>>{items}"),
            Template("{top}{name2}[{number}] = {name3}\n{name} = [[{items}<<],|,>> {items2}"),
        ),
        family(
            "loops",
            Template("{short}for {name} in [{name3}, {name4}]:\n    {name2} = <<[|[[>>{items}"),
            Template("{short}for {name} in [[{name3}], [{numbers}]]:\n    {name2} = <<[|[[>>{items}"),
        ),
    ),
)

BRACKET_BRACE = Task(
    name="bracket_brace",
    description="after a dict's key its closing quote and a colon, after a list's element the quote and a comma",
    answers=('":', '",'),
    main=(
        Template('{top}{name} = <<{|[>>"{text}', "<< {number}}| {number}]>>\n"),
        Template('{top}{name} = <<{|[>>"{text}<<":|",>> {number}, "{text2}', "<< {number2}}| {number2}]>>\n"),
        Template('{top}{name} = <<{|[>>"{text}<<":|",>> "{text2}", "{text3}', '<< "{text4}"}| "{text4}"]>>\n'),
        Template('{top}{name} = {function}(<<{|[>>"{text}', "<< {name2}}| {name2}]>>)\n"),
    ),
    shifted=(
        Template('{top}{name} = <<{|[>>\n    "{text}', "<< {number},\n}| {number},\n]>>\n"),
        Template('{top}def {function}({names}):\n{body}    return <<{|[>>"{text}', "<< {name}}| {name}]>>\n"),
        Template(
            '{top}class {Class}:\n    {name} = <<{|[>>\n        "{text}<<":|",>> {number},\n        "{text2}',
            "<< {number2},\n    }| {number2},\n    ]>>\n",
        ),
    ),
    selection=(
        family(
            "nested",
            Template('{top}if {condition}:\n{body}    {name} = <<{|[>>"{text}', "<< {number}}| {number}]>>\n"),
            Template(
                '{top}class {Class}:\n    def {function}(self):\n{deep}        self.{word} = <<{|[>>"{text}',
                "<< {name}}| {name}]>>\n",
            ),
        ),
        family(
            "finished",
            Template('{name2} = {"{text2}": {number2}}\n{short}{name} = <<{|[>>"{text}', "<< {number}}| {number}]>>\n"),
            Template('{name2} = ["{text2}", "{text3}"]\n{short}{name} = <<{|[>>"{text}', "<< {number}}| {number}]>>\n"),
            Template(
                '{name2} = {}\n{short}{name} = <<{|[>>"{text}<<":|",>> {number}, "{text2}',
                "<< {number2}}| {number2}]>>\n",
            ),
            Template(
                '{name2} = []\n{short}{name} = <<{|[>>"{text}<<":|",>> {number}, "{text2}',
                "<< {number2}}| {number2}]>>\n",
            ),
        ),
    ),
    unseen=(
        family(
            "loops",
            Template(
                '{top}for {name2} in ["{text2}", "{text3}"]:\n{body}    {name} = <<{|[>>"{text}',
                "<< {number}}| {number}]>>\n",
            ),
            Template(
                '{top}for {name2} in {"{text2}": {number2}}:\n{body}    {name} = <<{|[>>"{text}',
                "<< {number}}| {number}]>>\n",
            ),
        ),
        family(
            "arguments",
            Template('{top}{function}({"{text2}": {number2}}, <<{|[>>"{text}', "<< {number}}| {number}]>>)\n"),
            Template('{top}{function}(["{text2}", {number2}], <<{|[>>"{text}', "<< {number}}| {number}]>>)\n"),
        ),
    ),
)

FSTRING_BRACE = Task(
    name="fstring_brace",
    description="after a message's words: a brace for a value in an f-string, closing quote and comma in a plain one",
    answers=(" {", '",'),
    main=(
        Template('{top}print(<<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
        Template('{top}{function}(<<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
        Template('{top}{name2}.{function}(<<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
    ),
    shifted=(
        Template('{top}def {function}({name}):\n{body}    return print(<<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
        Template('{top}if {condition}:\n{body}    raise ValueError(<<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
        Template(
            '{top}class {Class}:\n    def {function}(self, {name}):\n{deep}        self.{function2}(<<f|>>"{phrase}',
            '<<{name}}")| {name})>>\n',
        ),
    ),
    same_length=False,  # (f and " are two tokens, (" is one
    selection=(
        family(
            "nested",
            Template('{top}for {name} in {name2}:\n{body}    {function}(<<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
            Template('{top}while {condition}:\n{body}    print(<<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
        ),
        family(
            "finished",
            Template('{name2} = f"{text2} {{name3}}"\n{short}print(<<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
            Template('{name2} = "{text2}"\n{short}print(<<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
            Template('print(f"{text2} {{name3}}")\n{short}{function}(<<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
            Template('print("{text2}", {name3})\n{short}{function}(<<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
        ),
    ),
    unseen=(
        family(
            "arguments",
            Template('{top}{function}(f"{text2} {{name3}}", <<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
            Template('{top}{function}("{text2}", <<f|>>"{phrase}', '<<{name}}")| {name})>>\n'),
        ),
        family(
            "conditions",
            Template(
                '{top}if {name2} == f"{text2} {{name3}}":\n{body}    {function}(<<f|>>"{phrase}',
                '<<{name}}")| {name})>>\n',
            ),
            Template(
                '{top}while {name2} != "{text2}":\n{body}    {function}(<<f|>>"{phrase}', '<<{name}}")| {name})>>\n'
            ),
        ),
    ),
)

TASKS = (SINGLE_DOUBLE_QUOTE, BRACKET_COUNTING, BRACKET_BRACE, FSTRING_BRACE)
