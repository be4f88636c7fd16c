"""Tasks of strings, brackets and braces: how something closes depends on how it opened."""

from tasks.task import Task, Template

TASKS = (
    Task(
        name="single_double_quote",
        description="close a string and its call with the quote that opened it: ') or \") and a line break",
        answers=("')\n", '")\n'),
        main=(
            Template("{short}print(<<'|\">>{phrase}"),
            Template("{short}{function}(<<'|\">>{phrase}"),
            Template("{short}{name}.{function}(<<'|\">>{phrase}"),
            Template("{short}{name} = {function}(<<'|\">>{phrase}"),
        ),
        shifted=(
            Template("{top}def {function}({names}):\n{body}    return {function2}(<<'|\">>{phrase}"),
            Template("{top}class {Class}:\n    def {function}(self):\n{deep}        raise ValueError(<<'|\">>{phrase}"),
            Template("{name} = \"{text}\"\n{name2} = '{text2}'\n{top}{function}(<<'|\">>{phrase}"),
            Template("{name} = '{text}'\n{name2} = \"{text2}\"\n{top}{function}(<<'|\">>{phrase}"),
        ),
    ),
    Task(
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
    ),
)
