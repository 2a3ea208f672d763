"""Checks the program in an export before TensorFlow or LiteRT opens it.

An export is a program: TensorFlow's operations can read and write files and call Python, and some of them run as soon
as a SavedModel is loaded. Only operations that compute with their inputs are allowed. What such a program computes, and
how long it takes, is not checked.
"""

import importlib
import re
from collections.abc import Iterable, Iterator, Set
from itertools import chain
from pathlib import Path
from typing import Any

from nmt.errors import UserError
from nmt.files import read_limited
from nmt.process import silence_stderr

# More than any export needs: a graph has some megabytes, most of them SentencePiece models.
MAX_PROGRAM_BYTES = 1 << 29

OPERATION_LIST = """
Abs Add AddN AddV2 All Any ApproximateEqual ArgMax ArgMin Assert AssignVariableOp Atan BatchMatMul BatchMatMulV2
BatchMatMulV3 BiasAdd BiasAddGrad Bincount Bitcast BitwiseAnd BitwiseXor BroadcastArgs BroadcastGradientArgs BroadcastTo
Bucketize Case Cast Ceil CheckNumerics ClipByValue Concat ConcatOffset ConcatV2 Const Cos Cumprod Cumsum
CumulativeLogsumexp DeepCopy DenseBincount DivNoNan Einsum Elu EluGrad EmptyTensorList EnsureShape Equal Erf Erfc Erfinv
Exp ExpandDims Expm1 Fill Floor FloorDiv FloorMod Gather GatherNd GatherV2 Greater GreaterEqual GuaranteeConst Identity
IdentityN If InTopKV2 Inv InvertPermutation IsFinite IsInf IsNan L2Loss LeakyRelu LeakyReluGrad Less LessEqual LinSpace
Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr LowerBound MatMul MatrixBandPart MatrixDiagV3 MatrixSetDiagV3 Max
Maximum Mean Min Minimum Mod Mul MulNoNan Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 PartitionedCall Placeholder
PlaceholderWithDefault Pow PreventGradient Prod RaggedGather RaggedRange RaggedTensorToTensor Range Rank ReadVariableOp
RealDiv Reciprocal ReciprocalGrad Relu Relu6 Relu6Grad ReluGrad Reshape ResourceGather ResourceGatherNd Reverse
ReverseSequence ReverseV2 RightShift Rint Roll Round Rsqrt RsqrtGrad ScatterNd SegmentMaxV2 SegmentSumV2 Select SelectV2
Selu SentencepieceDetokenizeOp SentencepieceIdToStringOp SentencepieceOp SentencepieceStringToIdOp
SentencepieceTokenizeOp SentencepieceTokenizeWithOffsetsOp SentencepieceVocabSizeOp Shape ShapeN Sigmoid SigmoidGrad
Sign Sin Size Slice Softmax SoftmaxCrossEntropyWithLogits Softplus SoftplusGrad Softsign
SparseSoftmaxCrossEntropyWithLogits Split SplitV Sqrt SqrtGrad Square SquaredDifference Squeeze StatefulPartitionedCall
StatelessCase StatelessIf StatelessWhile StaticRegexFullMatch StaticRegexReplace StopGradient StridedSlice
StridedSliceGrad StringFormat StringJoin StringLength StringLower StringSplitV2 StringStrip StringUpper Sub Substr Sum
Tan Tanh TanhGrad TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem
TensorListLength TensorListPopBack TensorListPushBack TensorListReserve TensorListResize TensorListScatterV2
TensorListSetItem TensorListSplit TensorListStack TensorScatterAdd TensorScatterMax TensorScatterMin TensorScatterUpdate
Tile TopKV2 Transpose TruncateDiv TruncateMod UnicodeDecodeWithOffsets UnicodeEncode UnicodeTranscode Unique UniqueV2
UniqueWithCounts Unpack UnsortedSegmentMax UnsortedSegmentProd UnsortedSegmentSum UpperBound VarHandleOp
VarIsInitializedOp Where While Xdivy Xlog1py Xlogy ZerosLike
"""
OPERATIONS = frozenset(OPERATION_LIST.split())
# Every SavedModel also has two functions that save and restore its variables. TensorFlow Serving calls the second one,
# Python neither: it reads the folder's own variables itself.
SAVER_OPERATIONS = frozenset(("DisableCopyOnRead", "MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"))

# What the objects of a SavedModel may be. Others, such as assets and registered classes, are revived by code elsewhere.
OBJECT_KINDS = frozenset(
    ("bare_concrete_function", "captured_tensor", "constant", "function", "resource", "user_object", "variable")
)
WRAPPERS = ("trackable_dict_wrapper", "trackable_list_wrapper", "trackable_tuple_wrapper")
CLASSES = frozenset(("_generic_user_object", "signature_map", *WRAPPERS))
SHARD = re.compile(r"variables\.data-[0-9]{5}-of-([0-9]{5})")


def check_savedmodel(folder: Path) -> None:
    """Checks that a SavedModel is complete and that its program only computes, without running any of it.

    Raises:
        UserError: files are missing, the graph cannot be read, or it contains something that is not allowed.
    """
    _check_files(folder)
    path = folder / "saved_model.pb"
    content = read_limited(path, MAX_PROGRAM_BYTES)
    from google.protobuf.message import DecodeError

    with silence_stderr():
        proto = importlib.import_module("tensorflow.core.protobuf.saved_model_pb2")
    try:
        graphs = proto.SavedModel.FromString(content).meta_graphs
    except DecodeError as error:
        raise UserError(f"{path} is damaged: it is not a SavedModel.") from error
    # A graph of TensorFlow 1 restores and initializes its variables by operations, which run while it is loaded.
    if len(graphs) != 1 or not graphs[0].HasField("object_graph_def"):
        raise UserError(f"{path} is not an export of this toolkit: expected one graph of TensorFlow 2.")
    check_meta_graph(graphs[0], path)


def check_meta_graph(meta_graph: Any, path: Path) -> None:
    """Checks that a MetaGraphDef of TensorFlow 2 has no operation that reads or writes files or calls Python.

    Args:
        meta_graph: the MetaGraphDef.
        path: where it comes from, for messages.

    Raises:
        UserError: an operation or object is not allowed.
    """
    library = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    objects = meta_graph.object_graph_def
    # Python calls the functions that objects name. TensorFlow may call one with this attribute in place of another.
    replacements = (name for name, function in library.items() if "api_implements" in function.attr)
    roots = chain(objects.concrete_functions, replacements, *map(_list_functions, objects.nodes))
    called = _find_called(library, roots)
    for name, function in library.items():
        _check_operations(function.node_def, OPERATIONS if name in called else OPERATIONS | SAVER_OPERATIONS, path)
    _check_operations(meta_graph.graph_def.node, OPERATIONS, path)
    for node in objects.nodes:
        _check_object(node, path)


def check_litert(path: Path) -> None:
    """Checks that a .tflite file is whole, has built-in operations only, and needs no other file.

    Raises:
        UserError: it is damaged, or contains something that is not allowed.
    """
    content = read_limited(path, MAX_PROGRAM_BYTES)
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    if len(content) < 8 or not schema.Model.ModelBufferHasIdentifier(content, 0):
        raise UserError(f"{path} is damaged: it is not a LiteRT model.")
    try:
        # Follows every offset within the bounds of the file. LiteRT itself follows them unchecked.
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    except Exception as error:  # whatever a wrong offset leads to
        raise UserError(f"{path} is damaged: it is not a LiteRT model.") from error
    custom = sorted({(code.customCode or b"?").decode(errors="replace") for code in _list_custom(model, schema)})
    if custom:
        _refuse(f"the operation {custom[0]}, which is not one of LiteRT's own", path)
    if model.externalBufferGroups or model.externalBuffers:
        _refuse("weights in another file", path)


def _check_files(folder: Path) -> None:
    """Raises UserError if the variables of a SavedModel are missing."""
    variables = folder / "variables"
    shards = [match for path in variables.glob("variables.data-*") if (match := SHARD.fullmatch(path.name))]
    number = max((int(match[1]) for match in shards), default=1)
    expected = [f"variables.data-{shard:05}-of-{number:05}" for shard in range(number)]
    for name in ("variables.index", *expected):
        if not (variables / name).is_file():
            raise UserError(f"The export {folder} is incomplete: there is no file {variables / name}. Copy it again.")


def _find_called(library: dict[str, Any], roots: Iterable[str]) -> Set[str]:
    """Returns the names of the functions that are called, directly or not."""
    called: set[str] = set()
    waiting = [name for name in roots if name in library]
    while waiting:
        name = waiting.pop()
        if name not in called:
            called.add(name)
            waiting += [one for node in library[name].node_def for one in _list_calls(node) if one in library]
    return called


def _list_calls(node: Any) -> Iterator[str]:
    yield node.op
    for attribute in node.attr.values():
        yield attribute.func.name
        yield from (function.name for function in attribute.list.func)


def _list_functions(node: Any) -> list[str]:
    """Returns the names of the functions that an object of a SavedModel names."""
    return [*node.function.concrete_functions, node.bare_concrete_function.concrete_function_name]


def _check_operations(nodes: Iterable[Any], allowed: Set[str], path: Path) -> None:
    for node in nodes:
        if node.op not in allowed:
            _refuse(f"the operation {node.op[:100]}, which exports of this toolkit do not use", path)


def _check_object(node: Any, path: Path) -> None:
    kind = node.WhichOneof("kind")
    registered = node.registered_name or node.registered_saver
    if registered or kind not in OBJECT_KINDS or (kind == "user_object" and node.user_object.identifier not in CLASSES):
        name = registered or (node.user_object.identifier if kind == "user_object" else kind)
        _refuse(f"an object of kind '{name}', which exports of this toolkit do not use", path)


def _list_custom(model: Any, schema: Any) -> list[Any]:
    custom = schema.BuiltinOperator.CUSTOM
    # Numbers above 127 do not fit into the older of the two fields.
    return [
        code
        for code in model.operatorCodes or []
        if code.customCode or max(code.builtinCode, code.deprecatedBuiltinCode) == custom
    ]


def _refuse(found: str, path: Path) -> None:
    raise UserError(f"{path} was not opened, because it contains {found}. It is damaged or not to be trusted.")
