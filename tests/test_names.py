"""Public functions are verbs: the first word of each name is in the list below."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "nmt"

VERB_LIST = """
abbreviate accept activate add adjust agree align allocate append assign attend average barrier block broadcast build
calibrate change check choose clean close compare compile compute convert count cut decode defer derive describe
discard distill download draw drop dump encode escape estimate evaluate examine exit expand explain export extract
fetch find finish fit forget format fuse gather get halve handle hash hold import index inspect join keep limit list
listen load locate lock log look make map mark measure name normalize observe open pad parse plan pool precompile
prefetch prepare print probe project protect put quantize rank read record recover remove rename render replace report
require resample restart restore resume reverse roll round run sample save scale scan scatter score search select send
serve set shift show silence split start step stop stream submit suggest sync tell tokenize trace track train
translate try tune use validate wait weigh write
"""
VERBS = set(VERB_LIST.split())

# Converters, questions, and methods that return a changed copy.
OTHER_FIRST_WORDS = {"as", "from", "to", "is", "has", "can", "may", "needs", "limits", "with", "without", "on"}
# Functions named after the operation that papers, Keras or other libraries call so.
TERMS = {
    *("atomic_replace", "atomic_write", "at_least_float32", "batch_gather", "beam_search", "bleu", "chrf"),
    *("back_translate", "config_from_text"),
    *("cross_entropy", "folder_lock", "learning_rate", "length_penalty", "matmul", "reservoir_sample", "top_k"),
    *("all_gather", "all_reduce_sum", "chief_first", "index_by_path"),
}
# Names that other programs call: Keras, uvicorn, asyncio, io, the signatures of a SavedModel, and the commands of nmt.
FOREIGN = {
    *("call", "handle_exit", "connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing"),
    *("startup", "unknown_decl"),
    *("fileno", "nbest", "readable", "readinto", "serving_default", "token_log_probs"),
    *("demo", "doctor", "ensemble", "info", "main"),
}
# A function that is a property, a cached value or a validator has a noun's name.
NOUNS = {"property", "cached_property", "computed_field", "model_validator", "setter"}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yields the public functions and methods of a file, without those inside other functions."""
    bodies = [ast.parse(path.read_text(encoding="utf-8")).body]
    while bodies:
        for node in bodies.pop():
            if isinstance(node, ast.ClassDef):
                bodies.append(node.body)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                yield node


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    called = (one.func if isinstance(one, ast.Call) else one for one in node.decorator_list)
    return {
        one.attr if isinstance(one, ast.Attribute) else one.id
        for one in called
        if isinstance(one, ast.Attribute | ast.Name)
    }


def test_public_functions_begin_with_a_verb():
    wrong = [
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in functions(path)
        if not decorators(node) & NOUNS
        and node.name not in TERMS | FOREIGN
        and node.name.split("_")[0] not in VERBS | OTHER_FIRST_WORDS
    ]
    assert wrong == []
