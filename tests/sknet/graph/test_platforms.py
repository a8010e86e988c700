"""What MindSpore declares of its primitives, and that the reviewed list says nothing untrue."""

import mmap
from pathlib import Path

import mindspore
import pytest

from sknet.graph.platforms import REVIEWED, declared_platforms

REVIEWED_WITH_KERNEL = [name for name, entry in REVIEWED.items() if entry.library]


@pytest.mark.parametrize(
    ("name", "platforms"),
    [
        ("Conv2D", ("Ascend", "GPU", "CPU")),  # its class says so
        ("ReLU", ("Ascend", "GPU", "CPU")),  # its class refers to mindspore.ops.relu
        ("ApplyKerasMomentum", ("Ascend",)),
        ("MaxPoolWithArgmax", ()),  # deprecated
        ("MaxPoolGrad", None),  # no public class
        ("UpdateState", None),  # a public class that declares nothing
        ("Divs", None),  # its class refers to a function that isn't public
    ],
)
def test_a_primitive_has_the_platforms_that_its_public_class_declares(
    name: str, platforms: tuple[str, ...] | None
) -> None:
    assert declared_platforms(name) == platforms


@pytest.mark.parametrize("name", REVIEWED)
def test_a_reviewed_primitive_is_one_of_which_no_class_declares_ascend(name: str) -> None:
    assert "Ascend" not in (declared_platforms(name) or ())
    assert REVIEWED[name].reason.endswith(".")
    assert REVIEWED[name].source.endswith(".")


@pytest.mark.parametrize("name", REVIEWED_WITH_KERNEL)
def test_mindspores_plugin_for_ascend_holds_what_a_review_refers_to(name: str) -> None:
    entry = REVIEWED[name]
    with (
        (Path(mindspore.__file__).parent / entry.library).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library,
    ):
        assert library.find(entry.symbol.encode()) != -1
        # The same search doesn't find what isn't there.
        assert library.find(entry.symbol.encode()[:-3] + b"AbsentEEE") == -1
