"""The public names: `voxpanel.__all__` and `docs/api.md` list the same ones."""

import re
from pathlib import Path

import pytest

import voxpanel

API = Path(__file__).parent.parent / "docs" / "api.md"
HEADING = "## Public names"


def documented_names():
    """Return the names of the list "- `name`" under the heading, up to the next heading."""
    _, section = API.read_text(encoding="utf-8").split(f"{HEADING}\n")
    return re.findall(r"^- `(\w+)`", section.split("\n## ")[0], flags=re.MULTILINE)


def test_the_docs_list_exactly_the_public_names():
    assert sorted(documented_names()) == sorted(voxpanel.__all__)


@pytest.mark.parametrize("name", voxpanel.__all__)
def test_a_public_name_is_there_and_listed_by_dir(name):
    assert getattr(voxpanel, name) is not None
    assert name in dir(voxpanel)


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = voxpanel.no_such_name
