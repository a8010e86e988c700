"""What users write about splits: the query after a source, and groups.csv."""

from pathlib import Path

import pytest

from sknet.data.sources.split_rule import read_groups, split_query
from sknet.data.sources.trees import LocalTree
from tests.refusals import refusal


@pytest.mark.parametrize(("query", "name"), [("val=0.2&val=0.4", "val"), ("seed=1&seed=1", "seed")])
def test_name_that_is_given_twice_is_refused(query: str, name: str) -> None:
    message = refusal(lambda: split_query(f"photos?{query}", query))
    assert message == f"data source 'photos?{query}' gives {name!r} twice: give it once"


@pytest.mark.parametrize(
    ("header", "name"), [("path,group,group", "group"), ("path,group, path", "path")]
)
def test_column_that_is_there_twice_is_refused(tmp_path: Path, header: str, name: str) -> None:
    (tmp_path / "groups.csv").write_text(f"{header}\na.png,b,c\n")
    message = refusal(lambda: read_groups(LocalTree(tmp_path)))
    assert message == f"{tmp_path}/groups.csv line 1 has the column {name!r} twice: keep one"
