"""Tasks of strings, brackets and braces: how something goes on or closes depends on how it opened."""

from .task import Task, Template

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
)

TASKS = (SINGLE_DOUBLE_QUOTE, BRACKET_COUNTING, BRACKET_BRACE, FSTRING_BRACE)
