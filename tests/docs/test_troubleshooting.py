"""docs/messages.md explains every message that is in the code, and no other."""

import re
import textwrap

import pytest
from pydantic import ValidationError

from tests.docs.messages import messages, messages_of
from tests.docs.troubleshooting import (
    INDEX,
    PAGE,
    Entry,
    anchor,
    explained,
    of_others,
    read_groups,
    render,
    render_index,
    without_entry,
    without_message,
)

COMMAND = "python -m tests.docs.troubleshooting"


def texts(source: str, path: str = "sknet/example.py") -> list[str]:
    return sorted(message.text for message in messages_of(textwrap.dedent(source), path))


def test_every_message_has_an_entry() -> None:
    missing = without_entry(read_groups(), messages())
    assert not missing, f"explain these in tests/docs/troubleshooting.yaml ({COMMAND} --stubs)"


def test_every_entry_has_a_message() -> None:
    assert not without_message(read_groups(), messages()), "remove these from troubleshooting.yaml"


def test_no_message_is_explained_twice() -> None:
    assert [text for text, times in explained(read_groups()).items() if times > 1] == []


def test_the_pages_are_made_from_the_entries() -> None:
    assert PAGE.read_text("utf-8") == render(read_groups()), f"run {COMMAND}"
    assert INDEX.read_text("utf-8") == render_index(read_groups()), f"run {COMMAND}"


def test_the_page_shows_every_message_in_a_line_of_its_own() -> None:
    shown = re.findall(r"^- (`.*`)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(shown) == len(explained(read_groups())) + len(of_others(read_groups()))
    assert "`the loss on … is …: the weights have diverged`" in shown


def test_every_entry_has_a_heading_of_its_own_to_which_both_indexes_lead() -> None:
    headings = re.findall(r"^#{2,3} (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len({anchor(heading) for heading in headings}) == len(headings)
    *_, by_place, by_word = re.split(r"\n## By \w+\n", INDEX.read_text("utf-8"))
    about = {entry.about for group in read_groups() for entry in group.entries}
    assert set(re.findall(r"\[([^]]+)\]\(messages.md#", by_place)) == about <= {*headings}
    contradiction = "[Keys that contradict each other](messages.md#keys-that-contradict-each-other)"
    assert f"- `warmup_epochs`: {contradiction}" in by_word
    assert "- `groups.csv`: " in by_word and "- `--out`: " in by_word and "- `EI0006`: " in by_word


def test_an_entry_without_cause_or_cure_is_refused() -> None:
    with pytest.raises(ValidationError, match="cure"):
        Entry(about="a thing", says=("a",), cause="b", cure="")


def test_messages_of_other_software_have_their_sources_on_the_page() -> None:
    groups = read_groups()
    page = PAGE.read_text("utf-8")
    for code in ("EI0006", "EI0002", "EI0019"):
        (entry,) = (
            entry
            for group in groups
            for entry in group.entries
            if any(text.startswith(code) for text in entry.says)
        )
        assert entry.source is not None
        assert f"([source]({entry.source}))" in page
    assert set(of_others(groups)).isdisjoint(message.text for message in messages())


def test_a_source_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValidationError, match="source"):
        Entry(about="a thing", says=("a",), cause="b", cure="c", source="HCCL's guide")


def test_a_message_is_its_text_with_dots_for_what_is_filled_in() -> None:
    source = """
        raise UserError(
            f"{where}: {key} is {value!r}, "
            f"expected {'one' if one else 'many'}"
        )
    """
    assert texts(source) == ["…: … is …, expected …"]


def test_a_constant_of_the_module_is_part_of_a_message() -> None:
    assert texts('NAME = "a.csv"\nraise UserError(f"no {NAME} in {place}")') == ["no a.csv in …"]


def test_an_error_that_is_not_raised_where_it_is_created_is_found() -> None:
    source = """
        def absent(self) -> StoreError:
            return StoreError(f"{self.root} has no such thing")

        class OddError(OSError):
            @classmethod
            def found(cls) -> "OddError":
                return cls(2, "it is not there")
    """
    assert texts(source) == ["it is not there", "… has no such thing"]


def test_a_call_that_passes_on_a_message_has_no_text() -> None:
    assert texts('raise UserError(str(error))\nraise UserError(f"{error}")') == []


def test_other_texts_are_no_messages() -> None:
    assert texts('print("hello world")\nraise AssertionError("unreachable")') == []


def test_texts_that_a_launcher_returns_are_messages() -> None:
    source = """
        def _outcome(code: int) -> tuple[str, str]:
            report = "all is well" if code == 0 else "nothing is"
            return "failed", f"not done within {code} s"
    """
    found = texts(source, "infra/launch/msrun.py")
    assert found == ["all is well", "failed", "not done within … s", "nothing is"]
    assert texts(source, "infra/launch/other.py") == []
