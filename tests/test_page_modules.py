"""Modules of the page as one script: what is joined, in which order, and what is refused."""

from pathlib import Path

import pytest

from sparse_gpt.page import modules


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"main.js": 'import { a as b } from "./a.js";\n', "a.js": "export const a = 1;\n"}, "cannot be joined"),
        ({"main.js": 'import a from "./a.js";\n', "a.js": "export default 1;\n"}, "cannot be joined"),
        ({"main.js": "export const a = `</script>`;\n"}, "cannot be joined"),
        (
            {"main.js": 'import { b } from "./a.js";\nconst a = b;\n', "a.js": "export const b = 1;\nconst a = 2;\n"},
            "a is a name in",
        ),
        ({"main.js": 'import { b } from "./a.js";\n', "a.js": 'import { a } from "./main.js";\n'}, "in a circle"),
    ],
)
def test_modules_that_cannot_be_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(modules, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=message):
        modules.join_modules("main.js")


def test_modules_come_after_those_that_they_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "main.js").write_text('import { b } from "./b.js";\nimport { a } from "./a.js";\nconst c = a + b;\n')
    (tmp_path / "b.js").write_text('import { a } from "./a.js";\nexport const b = a;\n')
    (tmp_path / "a.js").write_text("export const a = 1;\n")
    monkeypatch.setattr(modules, "FOLDER", tmp_path)
    joined = modules.join_modules("main.js")
    assert joined == '"use strict";\nconst a = 1;\n\nconst b = a;\n\nconst c = a + b;\n'
