"""Tasks of conditions and assignments."""

from .task import Task, Template, family

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
    selection=(
        family(
            "nested",
            Template(
                "{top}if {copy} == {number}:\n    if {name}:\n        {function}({name2})\n<<else|elif>>",
                "<<    pass\n| > {number2}:\n    pass\n>>",
            ),
            Template(
                "{top}while {condition}:\n    if {copy} < {number}:\n        {name} = {number3}\n    <<else|elif>>",
                "<<        pass\n| > {number2}:\n        pass\n>>",
            ),
        ),
        family(
            "finished",
            Template(
                "if {copy2} > {number3}:\n    {name} = {name2}\nelse:\n    {name} = {number4}\n"
                "{short}if {copy} == {number}:\n    {function}({name3})\n<<else|elif>>",
                "<<    pass\n| > {number2}:\n    pass\n>>",
            ),
            Template(
                "if {copy2} > {number3}:\n    {name} = {name2}\nelif {copy2} < {number4}:\n"
                "    {name} = {number4}\n{short}if {copy} == {number}:\n    {function}({name3})\n"
                "<<else|elif>>",
                "<<    pass\n| > {number2}:\n    pass\n>>",
            ),
            Template(
                "{top}if {copy} == {copy2}:\n    {function}({copy2})\n<<else|elif>>",
                "<<    pass\n| > {number2}:\n    pass\n>>",
            ),
        ),
    ),
    unseen=(
        family(
            "chains",
            Template(
                "{top}if {copy} == {number}:\n    {name} = {name2}\nelif {copy} == {number3}:\n"
                "    {function}({name3})\n<<else|elif>>",
                "<<    pass\n| > {number2}:\n    pass\n>>",
            ),
            Template(
                "{top}if {copy} > {number}:\n    {name} = {copy2}\nelif {copy} > {copy3}:\n"
                "    {name} = {copy3}\n<<else|elif>>",
                "<<    pass\n| > {number2}:\n    pass\n>>",
            ),
        ),
        family(
            "loops",
            Template(
                "{top}for {name} in {copy2}:\n    if {copy} < {number}:\n        {copy2} = {name}\n    <<else|elif>>",
                "<<        pass\n| > {number2}:\n        pass\n>>",
            ),
            Template(
                "{top}def {function}({copy2}, {copy}):\n    while {copy2}:\n"
                "        {copy2} = {number3}\n    if {copy} == {number}:\n"
                "        {copy2} = {name}\n    <<else|elif>>",
                "<<        pass\n| > {number2}:\n        pass\n>>",
            ),
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
    selection=(
        family(
            "nested",
            Template(
                "{top}while {condition2}:\n{body}    <<if not {name} or|{letter} = {name} if>> {condition}",
                "<<        pass\n| {name9}\n>>",
            ),
            Template(
                "{top}if {condition2}:\n{body}    <<if not {name} and|{letter} = {name} if>> {condition}",
                "<<        pass\n| {name9}\n>>",
            ),
        ),
        family(
            "finished",
            Template(
                "{name4} = {name5} if {name6} else {number}\n"
                "{short}<<if not {name} and|{letter} = {name} if>> {condition}",
                "<<    pass\n| {name9}\n>>",
            ),
            Template(
                "if {name4}:\n    {name5} = {number}\n{short}<<if not {name} and|{letter} = {name} if>> {condition}",
                "<<    pass\n| {name9}\n>>",
            ),
            Template(
                "if {name4}:\n    {name5} = {number}\nelse:\n    {name5} = {name6}\n"
                "{short}<<if not {name} or|{letter} = {name} if>> {condition}",
                "<<    pass\n| {name9}\n>>",
            ),
        ),
    ),
    unseen=(
        family(
            "calls",
            Template(
                "{top}{function}({name4} if {name5} else {name6})\n"
                "<<if not {name} and|{letter} = {name} if>> {condition}",
                "<<    pass\n| {name9}\n>>",
            ),
            Template(
                "{top}def {function}({names}):\n    if {name4}:\n"
                "        return {name5} if {name6} else {number}\n"
                "    <<if {name} and|return {name} if>> {condition}",
                "<<        pass\n| {name9}\n>>",
            ),
        ),
        family(
            "otherwise",
            Template(
                "{top}if {condition2}:\n    {name4} = {number}\nelse:\n"
                "    <<if not {name} or|{letter} = {name} if>> {condition}",
                "<<        pass\n| {name9}\n>>",
            ),
            Template(
                "{top}for {name4} in {name5}:\n    if {condition2}:\n        break\n"
                "    <<if not {name} and|{letter} = {name} if>> {condition}",
                "<<        pass\n| {name9}\n>>",
            ),
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
    selection=(
        family(
            "nested",
            Template(
                "{top}if {condition}:\n{body}    <<if not|{letter},>> {word}",
                "<< {number}:\n        pass\n| {number}\n>>",
            ),
            Template(
                "{top}class {Class}:\n    def {function}(self):\n        if {condition}:\n"
                "            <<if |self.>>{word}.{word3}",
                "<< {number}:\n                pass\n| {number}\n>>",
            ),
        ),
        family(
            "finished",
            Template(
                "if {name} == {number2}:\n    {function}({name2})\n{short}<<if not|{letter},>> {word}",
                "<< {number}:\n    pass\n| {number}\n>>",
            ),
            Template(
                "if {name}:\n    {name2}.{name3} = {number2}\n{short}<<if not|{letter},>> {word}.{word3}",
                "<< {number}:\n    pass\n| {number}\n>>",
            ),
            Template(
                "{name} = {name2} == {number2}\n{short}<<if not|{letter},>> {word}",
                "<< {number}:\n    pass\n| {number}\n>>",
            ),
        ),
    ),
    unseen=(
        family(
            "asserted",
            Template(
                "{top}assert {name} == {number2}\n<<if not|{letter},>> {word}", "<< {number}:\n    pass\n| {number}\n>>"
            ),
            Template(
                "{top}def {function}({names}):\n    return {name} == {number2}\n\n<<if not|{letter},>> {word}",
                "<< {number}:\n    pass\n| {number}\n>>",
            ),
        ),
        family(
            "otherwise",
            Template(
                "{top}if {name} == {name2}:\n    {name3} = {number2}\nelse:\n    <<if not|{letter},>> {word}",
                "<< {number}:\n        pass\n| {number}\n>>",
            ),
            Template(
                "{top}while {name} == {name2}:\n    if {name3} == {number2}:\n        break\n"
                "    <<if not|{letter},>> {word}",
                "<< {number}:\n        pass\n| {number}\n>>",
            ),
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
    selection=(
        family(
            "nested",
            Template(
                "{top}while {condition}:\n{body}    <<if {word} ==|{letter}.{word} =>> {boolean}", "<<        pass\n|>>"
            ),
            Template(
                "{top}class {Class}:\n    def {function}(self):\n        if {condition}:\n"
                "            <<if not {word} ==|{letter} = {word} =>> {boolean}",
                "<<                pass\n|>>",
            ),
        ),
        family(
            "finished",
            Template(
                "if {name} == {boolean2}:\n    {function}({name2})\n"
                "{short}<<if {word} ==|{letter}.{word} =>> {boolean}",
                "<<    pass\n|>>",
            ),
            Template(
                "if {name}:\n    {name2} = {boolean2}\n{short}<<if {word} ==|{letter}.{word} =>> {boolean}",
                "<<    pass\n|>>",
            ),
            Template(
                "{name} = {name2} == {boolean2}\n{short}<<if not {word} ==|{letter} = {word} =>> {boolean}",
                "<<    pass\n|>>",
            ),
        ),
    ),
    unseen=(
        family(
            "broken",
            Template(
                "{top}while {name}:\n    if {name2} == {boolean2}:\n        break\n"
                "    <<if {word} ==|{letter}.{word} =>> {boolean}",
                "<<        pass\n|>>",
            ),
            Template(
                "{top}for {name} in {name2}:\n    if {name} != {boolean2}:\n"
                "        {name3} = {number}\n    <<if {word} ==|{letter}.{word} =>> {boolean}",
                "<<        pass\n|>>",
            ),
        ),
        family(
            "otherwise",
            Template(
                "{top}if {condition}:\n    {name} = {boolean2}\nelse:\n"
                "    <<if {word} ==|{letter}.{word} =>> {boolean}",
                "<<        pass\n|>>",
            ),
            Template(
                "{top}if {name} == {number}:\n    {name2} = {boolean2}\nelif {name3}:\n"
                "    <<if not {word} ==|{letter} = {word} =>> {boolean}",
                "<<        pass\n|>>",
            ),
        ),
    ),
)

TASKS = (ELSE_ELIF, IF_TERNARY, IF_EQUALS, VAR_IF)
