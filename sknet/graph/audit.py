"""Sum up compiled graphs, and say what in them would fail or crawl on Ascend."""

from collections import Counter
from collections.abc import Iterable, Iterator

from infra.base.records import Record
from sknet.graph.compiling import CompiledGraph
from sknet.graph.platforms import REVIEWED, declared_platforms

UNFIT_DTYPES = ("float64", "int64")
"""Types that no training needs: it computes in float32 and float16, and counts steps and classes in
int32. Sizes and axes are int64 everywhere in MindSpore, but constants of the graph."""


class Primitive(Record):
    """A primitive in the graphs of a training."""

    name: str
    count: int
    """Number of its nodes; one in a subgraph counts once, however often that is called."""
    dtypes: tuple[str, ...]
    """Types of its tensors, sorted."""
    platforms: tuple[str, ...]
    """Platforms that its public class declares; empty if there is none, or it is deprecated."""


class Collective(Record):
    """A collective operation between ranks."""

    name: str
    count: int
    dtype: str
    fusion: int
    """Operations with the same number are fused; 0: not fused."""


class GraphAudit(Record):
    """What the graphs of a training consist of."""

    primitives: tuple[Primitive, ...]
    """The most frequent first."""
    collectives: tuple[Collective, ...]


def audit(graphs: Iterable[CompiledGraph]) -> GraphAudit:
    """Sum up the primitives and collectives of graphs."""
    nodes = [node for graph in graphs for node in graph.nodes]
    counts = Counter(node.primitive for node in nodes)
    collectives = Counter(
        (node.primitive, node.dtypes[0], node.fusion) for node in nodes if node.fusion is not None
    )
    return GraphAudit(
        primitives=tuple(
            Primitive(
                name=name,
                count=count,
                dtypes=tuple(
                    sorted({dtype for n in nodes if n.primitive == name for dtype in n.dtypes})
                ),
                platforms=declared_platforms(name) or (),
            )
            for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ),
        collectives=tuple(
            Collective(name=name, count=count, dtype=dtype, fusion=fusion)
            for (name, dtype, fusion), count in sorted(collectives.items())
        ),
    )


def findings(result: GraphAudit) -> Iterator[str]:
    """Yield in one line each what is unfit for Ascend."""
    for primitive in result.primitives:
        name = primitive.name
        if "Ascend" not in primitive.platforms and name not in REVIEWED:
            yield f"{name} {_lack(name)}"
        wires = name in REVIEWED and not REVIEWED[name].library
        for dtype in () if wires else UNFIT_DTYPES:
            if dtype in primitive.dtypes:
                yield f"{name} computes in {dtype}"
    for collective in result.collectives:
        if collective.dtype != "float32":
            yield f"{collective.count} {collective.name} are of {collective.dtype}, not float32"
        if not collective.fusion:
            yield f"{collective.count} {collective.name} are not fused"


def _lack(name: str) -> str:
    declared = declared_platforms(name)
    if declared is None:
        return "has no public class that declares Ascend, and is not reviewed"
    return f"is declared for {' and '.join(declared)} only" if declared else "is deprecated"
