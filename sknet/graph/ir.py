"""Read the text in which MindSpore writes a graph ("IR"): which primitives it has, on what types.

A node takes two lines, or more if it has a small tensor as a constant. Its sources follow as
comments:

      %4(output) = PrimFunc_Cast(%3, I64(42)) primitive_attrs: {…} cnode_attrs: {…}
          : (<Tensor[Float32], (64, 3)>, <Int64, NoShape>) -> (<Tensor[Float16], (64, 3)>)
          # In file …

A node may also call a subgraph, or a function that another node returns. Tested with MindSpore
2.10.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sknet.errors import GraphError

_NODE = re.compile(r"  %\d+\(.*?\) = (?P<rest>.+)")
_PRIMITIVE = re.compile(r"(?:PrimFunc_|S_Prim_)?(?P<name>[A-Za-z_]\w*)\(")
# Of a subgraph, or of a function in a variable.
_CALL = re.compile(r"call @|%")
_TYPES = re.compile(r"      : (?P<inputs>\(.*\)) -> (?P<outputs>\(.*\))")
_TENSOR = re.compile(r"Tensor\[(\w+)\]")
_SCALAR = re.compile(r"<((?:Int|UInt|Float|BFloat|Complex)\d+|Bool), NoShape>")
_GROUP = re.compile(r'\bgroup: "')
_FUSION = re.compile(r"\bfusion: I64\((\d+)\)")


@dataclass(frozen=True)
class Node:
    """One use of a primitive."""

    primitive: str
    """Name of the primitive, such as Conv2D."""
    dtypes: tuple[str, ...]
    """Types of its tensors, inputs first, and of the numbers that it computes; each type once.
    Numbers among its inputs, such as sizes and axes, are constants of the graph and don't count."""
    fusion: int | None = None
    """Of a collective operation: its group of fused operations; 0: it is not fused."""


def read_nodes(path: Path) -> list[Node]:
    """Return the primitives of all subgraphs in a file. A call of a subgraph is no primitive.

    Raises:
        GraphError: A node has an unknown form, as of another MindSpore; the message has its line.
    """
    return list(nodes_of(path.read_text("utf-8")))


def nodes_of(text: str) -> Iterator[Node]:
    """Yield the primitives in the text of a graph; see `read_nodes`."""
    lines = iter(text.splitlines())
    for line in lines:
        if not (node := _NODE.match(line)) or _CALL.match(node["rest"]):
            continue
        primitive = _PRIMITIVE.match(node["rest"])
        call, types = node["rest"], None
        for following in lines:
            if (types := _TYPES.match(following)) or _NODE.match(following):
                break
            call += following
        if not primitive or not types:
            raise GraphError(f"a node of MindSpore's graph has an unknown form: {line.strip()}")
        yield Node(
            primitive["name"],
            _dtypes(types["inputs"], types["outputs"]),
            _fusion(call) if _GROUP.search(call) else None,
        )


def _dtypes(inputs: str, outputs: str) -> tuple[str, ...]:
    found = (*_TENSOR.findall(inputs), *_TENSOR.findall(outputs), *_SCALAR.findall(outputs))
    return tuple(dict.fromkeys(name.lower() for name in found))


def _fusion(attributes: str) -> int:
    group = _FUSION.search(attributes)
    return int(group[1]) if group else 0
