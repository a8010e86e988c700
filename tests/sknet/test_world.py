"""What a process sets for its device: float32 in full on Ascend, the jit level, the mode."""

from collections.abc import Callable, Iterator

import mindspore as ms
import numpy as np
import pytest
from mindspore import context
from mindspore.device_context.ascend import op_precision

from sknet import world
from sknet.exporting.comparison import MAX_DIFFERENCES, relative_difference
from sknet.models import fold
from sknet.world import set_device
from tests.refusals import refusal
from tests.sknet.tiny_networks import tiny_network

pytestmark = pytest.mark.usefixtures("program_state")


class Precisions:
    """The settings that MindSpore keeps for Ascend, in place of the ones in its plugin.

    The plugin needs CANN. As there, "" is MindSpore's default, with which CANN rounds the inputs of
    convolutions to HF32.
    """

    def __init__(self) -> None:
        self.matmul, self.conv = "", ""

    def get_instance(self) -> "Precisions":
        return self

    def matmul_allow_hf32(self) -> str:
        return self.matmul

    def conv_allow_hf32(self) -> str:
        return self.conv

    def is_matmul_allow_hf32_configured(self) -> bool:
        return self.matmul != ""

    def is_conv_allow_hf32_configured(self) -> bool:
        return self.conv != ""

    def set_matmul_allow_hf32(self, value: str) -> None:
        self.matmul = value

    def set_conv_allow_hf32(self, value: str) -> None:
        self.conv = value


@pytest.fixture
def precisions(monkeypatch: pytest.MonkeyPatch) -> Precisions:
    """A machine with Ascend as far as MindSpore's own functions for precision see it."""
    settings = Precisions()
    monkeypatch.setattr(op_precision, "AscendOpPrecisionConf", settings, raising=False)
    monkeypatch.setattr(op_precision, "_is_supported", lambda: True)
    monkeypatch.setattr(world.ms, "set_device", lambda _: None)
    return settings


def test_ascend_computes_float32_in_full(precisions: Precisions) -> None:
    set_device("Ascend")
    assert (precisions.conv, precisions.matmul) == ("0", "0")


def test_a_process_may_set_its_device_twice(precisions: Precisions) -> None:
    set_device("Ascend")
    set_device("Ascend")
    assert (precisions.conv, precisions.matmul) == ("0", "0")


def test_on_cpu_the_precision_of_ascend_is_not_touched(precisions: Precisions) -> None:
    set_device("CPU")
    assert (precisions.conv, precisions.matmul) == ("", "")


def to_hf32(values: ms.Tensor) -> ms.Tensor:
    """Round float32 to the nearest HF32, which keeps 10 of 23 bits of the mantissa."""
    bits = values.asnumpy().view(np.uint32)
    rounded = bits + np.uint32(0x0FFF) + ((bits >> 13) & 1)
    return ms.Tensor((rounded & np.uint32(0xFFFFE000)).view(np.float32))


def test_the_limit_of_export_tells_full_float32_from_hf32(monkeypatch: pytest.MonkeyPatch) -> None:
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = tiny_network(num_classes=10).set_train(False)
    images = ms.Tensor(np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32))

    def difference() -> float:
        return relative_difference(
            fold(network).set_train(False)(images).asnumpy(), network(images).asnumpy()
        )

    assert difference() < MAX_DIFFERENCES["float32"] / 10

    in_full = ms.nn.Conv2d.construct

    def in_hf32(self: ms.nn.Conv2d, x: ms.Tensor) -> ms.Tensor:
        weight = self.weight.copy()
        self.weight.set_data(to_hf32(weight))
        result = in_full(self, to_hf32(x))
        self.weight.set_data(weight)
        return result

    monkeypatch.setattr(ms.nn.Conv2d, "construct", in_hf32)
    # Networks drawn anew differ by 4.5 to 20 times the limit.
    assert difference() > MAX_DIFFERENCES["float32"] * 2


@pytest.fixture
def jit_level() -> Iterator[Callable[[], str]]:
    """Reads the jit level of this process, which is restored after the test."""
    key = context.ms_ctx_param.jit_level
    before = context._context().get_param(key)
    yield lambda: str(context._context().get_param(key))
    context._context().set_param(key, before)


@pytest.mark.parametrize("level", ["O0", "O1", "O2"])
def test_the_jit_level_is_set(jit_level: Callable[[], str], level: str) -> None:
    set_device("CPU", jit_level=level)
    assert jit_level() == level


def test_without_a_jit_level_mindspores_own_default_stays(jit_level: Callable[[], str]) -> None:
    before = jit_level()
    set_device("CPU")
    assert jit_level() == before


def test_on_cpu_no_jit_level_changes_a_result(
    jit_level: Callable[[], str], capfd: pytest.CaptureFixture[str]
) -> None:
    x = ms.Tensor(np.random.default_rng(0).standard_normal((4, 8), np.float32))
    results = []
    for level in ("O0", "O1", "O2"):
        set_device("CPU", jit_level=level)

        class Unit(ms.nn.Cell):
            def construct(self, x: ms.Tensor) -> ms.Tensor:
                return ms.ops.relu(x).sum(axis=1)

        results.append(Unit()(x).asnumpy().tobytes())
    assert len(set(results)) == 1
    assert capfd.readouterr() == ("", "")


def test_ascend_on_a_machine_without_it_is_refused_with_mindspores_cause() -> None:
    line = refusal(lambda: set_device("Ascend"))
    assert line.startswith("device_target Ascend is not available on this machine: no Ascend card")
    # The first library of CANN that MindSpore's plugin needs.
    assert "; libge_runner.so: cannot open shared object file: No such file or directory" in line
    assert "set_env.sh` first" in line
