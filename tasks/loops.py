"""Tasks of loops."""

from .task import Task, Template, family

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
    selection=(
        family(
            "nested",
            Template("{top}for {name2} in {name3}:\n{body}    <<for|while>> {name}", "<< {name4}:\n|>>        pass\n"),
            Template("{top}while {condition}:\n{body}    <<for|while>> {name}", "<< {name4}:\n|>>        pass\n"),
        ),
        family(
            "finished",
            Template(
                "for {name2} in {name3}:\n    {function}({name2})\n{short}<<for|while>> {name}",
                "<< {name4}:\n|>>    pass\n",
            ),
            Template(
                "while {name2}:\n    {name2} = {number}\n{short}<<for|while>> {name}", "<< {name4}:\n|>>    pass\n"
            ),
        ),
    ),
    unseen=(
        family(
            "comprehensions",
            Template(
                "{top}{name2} = [{name3} for {name3} in {name4}]\n<<for|while>> {name}", "<< {name5}:\n|>>    pass\n"
            ),
            Template(
                "{short}def {function}({name6}):\n"
                "{body}    {name2} = {function2}({name3} for {name3} in {name4})\n"
                "    <<for|while>> {name}",
                "<< {name5}:\n|>>        pass\n",
            ),
        ),
        family(
            "broken",
            Template(
                "{top}def {function}({names}):\n    while {name2}:\n        if {condition}:\n"
                "            break\n    <<for|while>> {name}",
                "<< {name3}:\n|>>        pass\n",
            ),
            Template(
                "{top}def {function}({names}):\n    for {name2} in {name3}:\n"
                "        if {condition}:\n            break\n    <<for|while>> {name}",
                "<< {name4}:\n|>>        pass\n",
            ),
        ),
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
    selection=(
        family(
            "nested",
            Template(
                "{short}def {function}({name9}):\n    if {condition}:\n        if {name}:\n"
                "            {function2}({name2})\n<<    |        >>for {name3} in {name4}:\n",
                " pass\n",
            ),
            Template(
                "{short}class {Class}:\n    def {function}(self):\n{deep}        if {condition}:\n"
                "            {function2}({name})\n<<    |        >>for {name2} in {name3}:\n",
                " pass\n",
            ),
        ),
        family(
            "finished",
            Template(
                "{short}def {function}({name9}):\n    for {name} in {name2}:\n"
                "        {function2}({name})\n<<    |        >>for {name3} in {name4}:\n",
                " pass\n",
            ),
            Template(
                "{short}def {function}({name9}):\n    if {condition}:\n"
                "        for {name} in {name2}:\n            {function2}({name})\n"
                "<<    |        >>for {name3} in {name4}:\n",
                " pass\n",
            ),
        ),
    ),
    unseen=(
        family(
            "broken",
            Template(
                "{short}def {function}({name9}):\n    while {condition}:\n        if {name}:\n"
                "            break\n<<    |        >>for {name2} in {name3}:\n",
                " pass\n",
            ),
            Template(
                "{short}def {function}({name9}):\n    for {name} in {name2}:\n"
                "        while {name3}:\n            {function2}({name})\n"
                "<<    |        >>for {name4} in {name5}:\n",
                " pass\n",
            ),
        ),
        family(
            "otherwise",
            Template(
                "{short}def {function}({name9}):\n    if {condition}:\n        {name} = {number}\n"
                "    else:\n        {function2}({name})\n<<    |        >>for {name2} in {name3}:\n",
                " pass\n",
            ),
            Template(
                "{short}if {condition}:\n{body}    with {name}:\n        {function}({name})\n"
                "<<    |        >>for {name2} in {name3}:\n",
                " pass\n",
            ),
        ),
    ),
)

ENUMERATE_RANGE = Task(
    name="enumerate_range",
    description="after for ... in: enumerate for two loop variables, range for one",
    answers=(" enumerate", " range"),
    main=(
        Template("{top}for {word}<<, {word2}|_{word2}_{ending}>> in", "({name}):\n    pass\n"),
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
            "{top}if {condition}:\n{body}    for {word}<<, {word2}|_{word2}_{ending}>> in", "({name}):\n        pass\n"
        ),
        Template("{top}{name} = [{word3} for {word}<<, {word2}|_{digit}>> in", "({name2})]\n"),
    ),
    selection=(
        family(
            "nested",
            Template(
                "{top}for {name} in {name2}:\n{body}    for {word}<<, {letter}|_{digit}>> in",
                "({name3}):\n        pass\n",
            ),
            Template(
                "{top}while {condition}:\n{body}    for {word}<<, {letter}|_{digit}>> in", "({name}):\n        pass\n"
            ),
        ),
        family(
            "finished",
            Template(
                "for {word3}, {word4} in enumerate({name}):\n    {function}({word3}, {word4})\n"
                "{short}for {word}<<, {letter}|_{digit}>> in",
                "({name2}):\n    pass\n",
            ),
            Template(
                "for {word3} in range({number}):\n    {function}({word3})\n{short}for {word}<<, {letter}|_{digit}>> in",
                "({name2}):\n    pass\n",
            ),
            Template(
                "{name}, {name2} = {name3}, {name4}\n{short}for {word}<<, {letter}|_{digit}>> in",
                "({name5}):\n    pass\n",
            ),
        ),
    ),
    unseen=(
        family(
            "unpacked",
            Template(
                "{top}def {function}({name}, {name2}):\n    {name3}, {name4} = {name}\n"
                "    for {word}<<, {letter}|_{digit}>> in",
                "({name5}):\n        pass\n",
            ),
            Template(
                "{top}{function}({name}, {name2}, {name3})\nfor {word}<<, {letter}|_{digit}>> in",
                "({name4}):\n    pass\n",
            ),
        ),
        family(
            "comprehensions",
            Template(
                "{top}{name} = [{word3} for {word3} in range({number})]\nfor {word}<<, {letter}|_{digit}>> in",
                "({name2}):\n    pass\n",
            ),
            Template(
                "{top}{name} = [{word3} for {word4}, {word3} in enumerate({name2})]\n"
                "for {word}<<, {letter}|_{digit}>> in",
                "({name3}):\n    pass\n",
            ),
        ),
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
    selection=(
        family(
            "nested",
            Template(
                "{top}def {function}({names}):\n    while {condition}:\n{deep}        <<while|return>> True",
                "<<            break\n|>>",
            ),
            Template(
                "{top}def {function}({names}):\n    try:\n{deep}        <<while|return>> True",
                "<<            break\n|>>    finally:\n        pass\n",
            ),
        ),
        family(
            "finished",
            Template(
                "{top}def {function}({names}):\n    while {condition}:\n"
                "        {function2}({name})\n    <<while|return>> True",
                "<<        break\n|>>",
            ),
            Template(
                "{top}def {function}({names}):\n    if {condition}:\n        return {name}\n    <<while|return>> True",
                "<<        break\n|>>",
            ),
            Template(
                "{top}def {function}({names}):\n    if {condition}:\n        return True\n"
                "{body}    <<while|return>> True",
                "<<        break\n|>>",
            ),
        ),
    ),
    unseen=(
        family(
            "flags",
            Template(
                "{top}def {function}({names}):\n    {name} = True\n{body}    <<while|return>> True",
                "<<        break\n|>>",
            ),
            Template(
                "{top}def {function}({names}):\n    if {name} == True:\n"
                "        {name2} = {number}\n    <<while|return>> True",
                "<<        break\n|>>",
            ),
        ),
        family(
            "broken",
            Template(
                "{top}def {function}({names}):\n    while True:\n        if {condition}:\n"
                "            break\n    <<while|return>> True",
                "<<        break\n|>>",
            ),
            Template(
                "{top}def {function}({names}):\n    for {name} in {name2}:\n"
                "        if {condition}:\n            return {name}\n    <<while|return>> True",
                "<<        break\n|>>",
            ),
        ),
    ),
)

TASKS = (FOR_WHILE, INDENT_FOR, ENUMERATE_RANGE, WHILE_RETURN_TRUE)
