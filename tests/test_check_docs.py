"""The docs check finds what is wrong, and nothing else."""

from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def docs(monkeypatch):
    """Import the script as running it would."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import check_docs

    return check_docs


PAGE = """\
# A page, of course

[good](other.md) [deep](other.md#two-words) [here](#a-page-of-course) [web](https://x.invalid/a)
[second](other.md#again-1)

`[code](nowhere.md)`

```python
a = [1](nowhere.md)  # no link
```
"""
OTHER = "# Two `words`!\n\n## Again\n\n## Again\n\n```sh\n# not a heading\n```\n"


def test_links_that_lead_somewhere_are_in_order(docs, tmp_path):
    (tmp_path / "other.md").write_text(OTHER)
    (tmp_path / "page.md").write_text(PAGE)
    assert list(docs.check_links(tmp_path / "page.md", PAGE)) == []


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("[a](gone.md)", "there is no gone.md beside the page"),
        ("[a](other.md#three)", "no heading of that page makes #three"),
        ("[a](other.md#not-a-heading)", "no heading of that page makes #not-a-heading"),
        ("[a](#b)", "no heading of that page makes #b"),
        ("![a](gone.png)", "there is no gone.png"),
        ("[a]: gone.md", "there is no gone.md"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(docs, tmp_path, link, problem):
    (tmp_path / "other.md").write_text(OTHER)
    (tmp_path / "page.md").write_text(link)
    (found,) = docs.check_links(tmp_path / "page.md", link)
    assert problem in found


def test_commands_that_exist_are_in_order(docs):
    lines = [
        "$ voxpanel score clips/ -o scores.csv --force  # talk",
        "$ voxpanel score a.wav | sort --reverse",
        "$ voxpanel evaluate t.csv \\\n    --columns score=a,label=b",
        "$ voxpanel --version",
        "$ make demo",
        "an output line: voxpanel fly",
    ]
    assert list(docs.check_commands("```console\n" + "\n".join(lines) + "\n```\n")) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("$ voxpanel fly", "there is no command fly; known are score, train"),
        ("$ voxpanel score a.wav --fly=1", "voxpanel score has no option --fly"),
        ("voxpanel models --force", "voxpanel models has no option --force"),
    ],
)
def test_a_command_that_does_not_exist_is_named(docs, line, problem):
    (found,) = docs.check_commands(f"```console\n{line}\n```\n")
    assert problem in found


def test_other_blocks_are_not_commands(docs):
    assert list(docs.check_commands("```text\nvoxpanel fly\n```\n")) == []


def test_a_page_that_differs_is_shown_with_the_way_out(docs, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "cli.md").write_text(docs.cli_docs().replace("--model", "--modell"))
    (found,) = docs.check_cli_page(tmp_path)
    assert "run python scripts/check_docs.py --write" in found
    assert "-  --modell" in found
    (tmp_path / "docs" / "cli.md").write_text(docs.cli_docs())
    assert list(docs.check_cli_page(tmp_path)) == []


def test_the_width_of_the_terminal_does_not_matter(docs, monkeypatch):
    page = docs.cli_docs()
    monkeypatch.setenv("COLUMNS", "200")
    assert docs.cli_docs() == page


def test_a_page_that_is_missing_is_a_problem(docs, tmp_path):
    found = list(docs.check(tmp_path))
    assert "README.md: not there; write it" in found
