"""A file that an option names is refused before the work, and is never found half written."""

import os
from pathlib import Path

import pytest

from infra.base.records import Record
from sknet import outputs
from sknet.errors import UserError


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (".", r"^--json \. is a directory, expected a file$"),
        ("file/x.json", r"^--json file can't be made: File exists$"),
        ("/proc/x.json", r"^--json /proc/x\.json can't be written: No such file or directory$"),
        ("n" * 300, r"^--json n+ can't be written: File name too long$"),
        # The new file is written under a longer name, and renamed.
        ("n" * 253, r"^--json n+ can't be written: File name too long$"),
        ("n" * 300 + "/x.json", r"^--json n+ can't be made: File name too long$"),
        ("broken", r"^--json broken can't be written: No such file or directory$"),
    ],
)
def test_a_file_that_can_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("broken").symlink_to("gone/x.json")
    with pytest.raises(UserError, match=said):
        outputs.prepare_file(Path(path), "--json")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["broken", "file"]


def test_an_existing_file_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, link = tmp_path / "out/x.json", tmp_path / "link.json"
    outputs.prepare_file(file, "--json")
    outputs.write_json(Record(), file)
    link.symlink_to(file)
    with file.open() as old:
        outputs.write_file(link, b"new", "--json")
        assert old.read() == "{}\n"
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert [each.name for each in file.parent.iterdir()] == ["x.json"]


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        outputs.prepare_file(pipe, "--json")
        outputs.write_file(pipe, b"content", "--json")
        assert os.read(reader, 99) == b"content"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
