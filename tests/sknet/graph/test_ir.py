"""MindSpore's text of a graph: every node of a primitive is found, with its types."""

import pytest

from sknet.errors import GraphError
from sknet.graph.ir import Node, nodes_of

# As MindSpore 2.10 writes it, shortened: parameters, then two subgraphs.
GRAPH = """\
# IR entry: @1_training_step_1
# Total subgraphs: 2

# Params:
%para1_images: <Tensor[UInt8], (2, 3, 32, 32)> : [2, 3, 32, 32]

subgraph @1_training_step_1() {
  %0(CNode_1) = PrimFunc_Cast(%para1_images, I64(43)) primitive_attrs: {input_names: [x, dst_type]}
      : (<Tensor[UInt8], (2, 3, 32, 32)>, <Int64, NoShape>) -> (<Tensor[Float32], (2, 3, 32, 32)>)
      # Fullname with scope: (Default/Cast-op0)
      # In file sknet/training/step.py:107~132, 4~19/    def construct(/
  %1(▲CNode_2$x) = PrimFunc_Sub(%0, Tensor(shape=[1, 3, 1, 1], dtype=Float32, value=
[[[[ 1.0]],
  [[ 2.0]],
  [[ 3.0]]]]))
      : (<Tensor[Float32], (2, 3, 32, 32)>, <Tensor[Float32], (1, 3, 1, 1), value=...>) -> \
(<Tensor[Float32], (2, 3, 32, 32)>)
  %2(CNode_3) = Conv2D(%1, %w) {instance name: conv2d} primitive_attrs: {group: I64(1), pad: (3, 3)}
      : (<Tensor[Float32], (2, 3, 32, 32)>, <Ref[Tensor[Float16]], (64, 3, 7, 7), ref_key=w>) -> \
(<Tensor[Float32], (2, 64, 16, 16)>)
  %3(CNode_4) = AllReduce(%2) {instance name: all_reduce} primitive_attrs: {group: \
"hccl_world_group", fusion: I64(7), op: "sum"}
      : (<Tensor[Float32], (64)>) -> (<Tensor[Float32], (64)>)
  %4(CNode_5) = AllGather(%2) primitive_attrs: {group: "hccl_world_group", rank_size: I64(2)}
      : (<Tensor[Float16], (64)>) -> (<Tensor[Float16], (128)>)
  %5(CNode_6) = call @2_branch_2(%3)
      : (<Tensor[Float32], (64)>) -> (<Tensor[Float32], (64)>)
  %6(CNode_7) = %5[@FuncUnion(@2_branch_2)](%3)
      : (<Tensor[Float32], (64)>) -> (<Tensor[Float32], (64)>)
  %7(CNode_8) = UpdateState(UMonad[U], %3)
      : (<UMonad, NoShape>, <Tensor[Float32], (64)>) -> (<UMonad, NoShape>)
  Return(%6)
      : (<Tensor[Float32], (64)>)
}

subgraph @2_branch_2(%para2) {
  %8(CNode_9) = TensorToScalar(%para2)
      : (<Tensor[Int32], ()>) -> (<Int64, NoShape>)
  %9(CNode_10) = MakeTuple(I64(1), I64(2))
      : (<Int64, NoShape>, <Int64, NoShape>) -> (<Tuple[Int64*2], TupleShape(NoShape, NoShape)>)
  Return(%8)
      : (<Int64, NoShape>)
}
"""


def test_each_primitive_of_each_subgraph_is_found_with_types_and_fusion() -> None:
    assert list(nodes_of(GRAPH)) == [
        Node("Cast", ("uint8", "float32")),
        Node("Sub", ("float32",)),
        Node("Conv2D", ("float32", "float16")),
        Node("AllReduce", ("float32",), fusion=7),
        Node("AllGather", ("float16",), fusion=0),
        Node("UpdateState", ("float32",)),
        Node("TensorToScalar", ("int32", "int64")),
        Node("MakeTuple", ()),
    ]


@pytest.mark.parametrize(
    ("known", "unknown"),
    [
        ("= Conv2D(%1", "= <Conv2D>(%1"),
        ("      : (<Tensor[Float32], (64)>) -> (<Tensor[Float32], (64)>)\n", ""),
        (") -> (<Int64, NoShape>)", ")"),
    ],
)
def test_what_this_form_does_not_know_is_an_error_and_never_left_out(
    known: str, unknown: str
) -> None:
    assert known in GRAPH
    with pytest.raises(GraphError, match="has an unknown form: %"):
        list(nodes_of(GRAPH.replace(known, unknown)))
