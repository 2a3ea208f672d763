"""What stands beside the version folders of an export, so that TensorFlow Serving is started by one command.

DIR/README.md               the commands, the requests, the limits, and how to go to another version
DIR/compose.yaml            Docker Compose
DIR/models.config           which versions are served; DIR/batching_parameters.txt, how requests are put together;
DIR/monitoring.config       where Prometheus finds the server

The server looks for folders with a number for a name, and passes over all else in DIR.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from nmt.files import atomic_write

NAMES = ("README.md", "compose.yaml", "models.config", "batching_parameters.txt", "monitoring.config")
MARKER = "written by nmt export, and anew by the next as long as this line stands"
MAX_REQUEST_BATCHES = 4
"""A request may have so many times the texts that are translated at once."""


@dataclass(frozen=True)
class Bundle:
    """What the files say of an export."""

    name: str
    """Of the model, in paths and requests."""
    server_version: str
    """Also the tag of the server's image."""
    languages: tuple[str, str]
    """Codes of source and target."""
    limits: Mapping[str, int]
    """max_characters, max_tokens, max_batch, nbest."""
    signatures: Mapping[str, Any]
    """The SignatureDefs of the graph by name."""
    example: str
    """A sentence to translate in the examples."""

    @property
    def max_request(self) -> int:
        """Most texts of a request."""
        return MAX_REQUEST_BATCHES * self.limits["max_batch"]

    def write(self, into: Path, log: Callable[[str], None] = print) -> None:
        """Writes the files, each whole or not at all, but for those that somebody else wrote or changed.

        Args:
            into: the folder of the version folders.
            log: told of each file that is left as it is.

        Raises:
            UserError: a file cannot be written.
        """
        for name in NAMES:
            path = into / name
            if path.is_file() and MARKER not in path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]:
                log(f"{path} is not ours and is left as it is.")
                continue
            with atomic_write(path) as aside:
                aside.write_text(self.render(name), encoding="utf-8")

    def render(self, name: str) -> str:
        """The text of one of the files."""
        template = files("nmt.exporting") / "templates" / name
        return Template(template.read_text(encoding="utf-8")).substitute(self._values())

    def _values(self) -> dict[str, Any]:
        divided = can_be_split(self.signatures)
        return {
            "name": self.name,
            "version": self.server_version,
            "source_language": self.languages[0],
            "target_language": self.languages[1],
            **self.limits,
            "max_request": self.max_request,
            "can_split": str(divided).lower(),
            "split_by": "the server divides what is larger" if divided else "the graph works off larger ones in parts",
            "signatures": "\n".join(_row(*one) for one in sorted(self.signatures.items())),
            "instances": _body({"instances": [self.example]}),
            "nbest_inputs": _body({"signature_name": "nbest", "inputs": [self.example]}),
        }


def make_model_name(folder: Path) -> str:
    """What a model is called after its folder, in letters that paths, YAML and shells leave alone.

    >>> make_model_name(Path("exports/Wörter 2"))
    'W-rter-2'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-.") or "model"


def find_text_signatures(signatures: Mapping[str, Any]) -> list[str]:
    """Names of the signatures whose one input is `text`."""
    return sorted(name for name, signature in signatures.items() if set(signature.inputs) == {"text"})


def can_be_split(signatures: Mapping[str, Any]) -> bool:
    """Whether the server may answer a request in parts: it joins them rightly only if all rows have one known shape."""
    outputs = [output for signature in signatures.values() for output in signature.outputs.values()]
    return all(size >= 0 for output in outputs for size in _sizes(output)[1:])


def _row(name: str, signature: Any) -> str:
    """A row of the table of signatures."""
    return f"| `{name}` | {_tensors(signature.inputs)} | {_tensors(signature.outputs)} |"


def _tensors(tensors: Mapping[str, Any]) -> str:
    from tensorflow import dtypes

    def one(name: str, tensor: Any) -> str:
        sizes = ", ".join("?" if size < 0 else str(size) for size in _sizes(tensor)[1:])
        return f"`{name}` {dtypes.as_dtype(tensor.dtype).name} [{', '.join(filter(None, ['N', sizes]))}]"

    return ", ".join(one(*item) for item in sorted(tensors.items()))


def _sizes(tensor: Any) -> Sequence[int]:
    return [dimension.size for dimension in tensor.tensor_shape.dim]


def _body(request: dict[str, Any]) -> str:
    """A request as an argument of curl."""
    text = json.dumps(request, ensure_ascii=False).replace("'", r"\u0027")
    return f"'{text}'"
