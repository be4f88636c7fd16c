"""Documents are short where they promise to be, and name only what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_readme_and_notes_are_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 6000
    assert len((ROOT / "BUILD_NOTES.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    paths = re.findall(r"`((?:sparse_gpt|tasks|launch|tests|docs)/[\w/.-]*[\w/])`", text)
    missing += [path for path in paths if not (ROOT / path).exists()]
    assert missing == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        waiting += [
            (page.parent / link.split("#")[0]).resolve()
            for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
            if "://" not in link and (page.parent / link.split("#")[0]).is_file()
        ]
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in seen] == ["docs/index.md"]
