"""The stock TensorFlow Serving: which version will run an export, and whether it has the operations of the graph.

A version of the server has the operations of the TensorFlow wheel of the same version and those of tensorflow-text
(SUPPORTED_TENSORFLOW_OPS in tensorflow_serving/model_servers/BUILD). It has no Python and does not compile with XLA.
"""

from collections.abc import Callable
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from nmt.errors import OperationError, UserError
from nmt.process import silence_stderr
from nmt.translators.savedmodel import import_tensorflow


def choose_server_version(wanted: str | None, log: Callable[[str], None] = print) -> str:
    """Returns the version of the server that will run the export, such as 2.21.0. It is also the tag of its image.

    Args:
        wanted: None takes the first release of TensorFlow's own minor version.
        log: receives a warning if the server is newer than TensorFlow.

    Raises:
        UserError: the server is older than TensorFlow.
    """
    written = installed_version("tensorflow")
    own, server = _parse_minor(written), _parse_minor(wanted or written)
    if server < own:
        raise UserError(
            f"export.server_version is {wanted}, but TensorFlow {written} writes the graph, and a server reads only "
            f"graphs of its own version and of older ones. Set {_format_minor(own)}.0 or newer, or export with "
            f"TensorFlow {_format_minor(server)}."
        )
    if server > own:
        log(
            f"Warning: The server {wanted} is newer than TensorFlow {written}, whose operations the graph was checked "
            "against. Test the export on that server."
        )
    return wanted or f"{_format_minor(own)}.0"


def read_meta_graph(folder: Path) -> Any:
    """Returns the MetaGraphDef of a SavedModel."""
    with silence_stderr():
        import_tensorflow()
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    return SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0]


def check_operations(graph: Any) -> list[str]:
    """Returns the kinds of operations in a GraphDef and its functions, sorted by name.

    Raises:
        OperationError: the stock server does not have all of them.
    """
    functions = graph.library.function
    called = {function.signature.name for function in functions}
    nodes = [*graph.node, *(node for function in functions for node in function.node_def)]
    kinds = sorted({node.op for node in nodes} - called)
    lacking = {kind: why for kind in kinds if (why := _explain_missing(kind))}
    compiled = [one.signature.name for one in functions if one.attr["_XlaMustCompile"].b]
    lacking |= dict.fromkeys(compiled, "must be compiled by XLA")
    if lacking:
        listed = ", ".join(f"{kind} ({why})" for kind, why in lacking.items())
        raise OperationError(f"The stock server cannot run the graph, so nothing was written: {listed}.")
    return kinds


def _explain_missing(kind: str) -> str | None:
    from tensorflow.python.framework import kernels, op_def_registry

    if "PyFunc" in kind:
        return "calls Python"
    if kind.startswith(("Xla", "_Xla")):
        return "needs XLA"
    if op_def_registry.get(kind) is None:
        return "is neither in TensorFlow nor in tensorflow-text"
    devices = {kernel.device_type for kernel in kernels.get_registered_kernels_for_op(kind).kernel}
    return None if devices & {"CPU", "DEFAULT"} else "does not run on a CPU"


def _parse_minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _format_minor(minor: tuple[int, int]) -> str:
    return ".".join(map(str, minor))
