"""Tasks of loops."""

from tasks.task import Task, Template

TASKS = (
    Task(
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
    ),
)
