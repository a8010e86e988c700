"""Graphs are summed up, and what is unfit for Ascend is named."""

import pytest

from sknet.graph.audit import audit, findings
from sknet.graph.compiling import CompiledGraph
from sknet.graph.ir import Node

CONVOLUTION = Node("Conv2D", ("float16",))
FUSED = Node("AllReduce", ("float32",), fusion=1)


def of(*nodes: Node) -> CompiledGraph:
    return CompiledGraph("training step", list(nodes))


def test_graphs_are_summed_up_in_the_documented_form() -> None:
    step = of(FUSED, CONVOLUTION, FUSED, Node("Conv2D", ("float32",)), Node("MaxPoolGrad", ()))
    evaluation = of(CONVOLUTION)
    everywhere = ["Ascend", "GPU", "CPU"]
    assert audit([step, evaluation]).model_dump(mode="json") == {
        "primitives": [
            {
                "name": "Conv2D",
                "count": 3,
                "dtypes": ["float16", "float32"],
                "platforms": everywhere,
            },
            {"name": "AllReduce", "count": 2, "dtypes": ["float32"], "platforms": everywhere},
            {"name": "MaxPoolGrad", "count": 1, "dtypes": [], "platforms": []},
        ],
        "collectives": [{"name": "AllReduce", "count": 2, "dtype": "float32", "fusion": 1}],
    }


def test_declared_and_reviewed_primitives_and_fused_collectives_are_fit() -> None:
    gradient, wiring = Node("MaxPoolGrad", ("float16",)), Node("TupleGetItem", ("int64",))
    assert list(findings(audit([of(CONVOLUTION, FUSED, gradient, wiring)]))) == []


@pytest.mark.parametrize(
    ("node", "finding"),
    [
        (Node("MaxPoolWithArgmax", ("float32",)), "MaxPoolWithArgmax is deprecated"),
        (Node("Coalesce", ("float32",)), "Coalesce is declared for GPU and CPU only"),
        (
            Node("EqScalar", ()),
            "EqScalar has no public class that declares Ascend, and is not reviewed",
        ),
        (Node("Mul", ("float64",)), "Mul computes in float64"),
        (Node("Sub", ("bool", "int64")), "Sub computes in int64"),
        (Node("AllReduce", ("float32",), fusion=0), "2 AllReduce are not fused"),
        (
            Node("AllReduce", ("float16",), fusion=1),
            "2 AllReduce are of float16, not float32",
        ),
    ],
)
def test_what_is_unfit_for_ascend_is_named(node: Node, finding: str) -> None:
    assert list(findings(audit([of(CONVOLUTION, FUSED, node, node)]))) == [finding]
