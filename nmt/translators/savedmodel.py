"""An exported model in Python: the same calls as `Translator`, answered by the SavedModel."""

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from nmt.errors import UserError
from nmt.process import silenced
from nmt.translators.export_record import check_settings, read_record
from nmt.translators.hypothesis import WINDOW, Hypothesis

RECORD = Path("assets.extra", "export.json")
INSTALL = "install it by: pip install tensorflow-text (there is none for Windows)"


class ExportedTranslator:
    """Translates lines of text with an export.

    Beam and ranking were fixed when it was made. A line that is longer than it reads at once is refused, never cut.

    Args:
        model: a loaded SavedModel.
        record: what its export.json says.
    """

    def __init__(self, model: Any, record: dict[str, Any]):
        self.record = record
        self._model = model  # the signatures live as long as it does

    @classmethod
    def load(cls, path: Path | str) -> "ExportedTranslator":
        """Opens a version folder, or the newest of a folder of versions.

        Raises:
            UserError: there is no export of ours, or tensorflow-text is missing.
        """
        folder = version_folder(Path(path))
        record = read_record(folder, RECORD)
        with silenced():
            tensorflow = import_tensorflow()
            return cls(tensorflow.saved_model.load(str(folder)), record)

    @property
    def settings(self) -> dict[str, Any]:
        """How it searches."""
        return self.record["decoding"]

    @property
    def target_language(self) -> str:
        """Language code of its translations."""
        return self.record["target_language"]

    def with_decoding(self, **changes: Any) -> "ExportedTranslator":
        """Itself, where the changes of `DecodingConfig` that are not None change nothing.

        Raises:
            UserError: a setting differs from the one fixed when the export was made.
        """
        check_settings(self.settings, changes)
        return self

    def translate(self, lines: Iterable[str]) -> list[str]:
        """The best translation of each line; blank lines come back blank.

        Raises:
            UserError: a line is too long.
        """
        return [text for chunk in _chunks(lines, WINDOW) for text in self._translate_chunk(chunk)]

    def stream(self, lines: Iterable[str], *, num_best: int = 1, window: int = WINDOW) -> Iterator[list[Hypothesis]]:
        """Yields the best translations of each line, in order, never two of one line with the same text.

        Args:
            lines: any number; `window` of them are held at once, and no more than the export translates at once.
            num_best: at most so many hypotheses a line, best first.
            window: lines read before the first answer.

        Raises:
            UserError: more hypotheses are asked for than the export gives, or a line is too long.
        """
        self.check_num_best(num_best)
        # Attention, which comes with the hypotheses, is large: [lines, hypotheses, pieces, pieces].
        for chunk in _chunks(lines, min(window, self.record["limits"]["max_batch"])):
            yield from self._hypotheses(chunk, num_best)

    def check_num_best(self, num_best: int) -> None:
        """Raises UserError where more hypotheses are asked for than the export gives."""
        most = self.record["limits"]["nbest"]
        if num_best > most:
            raise UserError(
                f"This export gives at most {most} translations a line, and {num_best} were asked for: "
                "export the model anew with a larger export.nbest, or translate with the model itself."
            )

    def signature(self, name: str, lines: Sequence[str]) -> dict[str, Any]:
        """What a signature says of lines, by output; see `nmt.exporting.graph`. The end of a long line is cut off.

        Args:
            name: serving_default or nbest.
            lines: any number, in memory at once.
        """
        import tensorflow as tf

        found = self._model.signatures[name](text=tf.constant(list(lines), tf.string))
        return {output: x.numpy() for output, x in found.items()}

    def _translate_chunk(self, lines: list[str]) -> list[str]:
        found = self._answer("serving_default", lines)
        return [text.decode() for text in found["translation"]]

    def _hypotheses(self, lines: list[str], num_best: int) -> Iterator[list[Hypothesis]]:
        found = self._answer("nbest", lines)
        columns = (found[name] for name in ("num_hypotheses", "translations", "scores", "log_probs"))
        for count, *row in zip(*columns, strict=True):
            together = islice(zip(*row, strict=True), min(count, num_best))
            yield [Hypothesis(text.decode(), float(score), float(log_prob)) for text, score, log_prob in together]

    def _answer(self, name: str, lines: list[str]) -> dict[str, Any]:
        found = self.signature(name, lines)
        for line, truncated in zip(lines, found["truncated"], strict=True):
            if truncated:
                limits = self.record["limits"]
                raise UserError(
                    f"The line '{line[:40]}…' of {len(line):,} characters is longer than this export reads at once, "
                    f"{limits['max_characters']:,} characters or {limits['max_pieces']:,} pieces. Divide it, or "
                    "translate with the model itself, which divides long lines."
                )
        return found


def version_folder(path: Path) -> Path:
    """Returns the version folder at a path: itself, or the one with the highest number in it.

    Raises:
        UserError: there is none.
    """
    if (path / "saved_model.pb").is_file():
        return path
    found = [folder for folder in versions(path) if (folder / "saved_model.pb").is_file()]
    if not found:
        raise UserError(f"{path} is no export: expected saved_model.pb in it, or in a folder 1, 2, … of it.")
    return found[-1]


def versions(path: Path) -> list[Path]:
    """What stands in a folder under a number, lowest first; TensorFlow Serving takes the highest."""
    numbered = [child for child in path.glob("[0-9]*") if child.name.isdecimal()]
    return sorted(numbered, key=lambda child: int(child.name))


def import_tensorflow() -> Any:
    """Returns TensorFlow with SentencePiece's operations.

    Raises:
        UserError: TensorFlow or tensorflow-text is missing.
    """
    check_tensorflow_text()
    importlib.import_module("tensorflow_text")
    return importlib.import_module("tensorflow")


def check_tensorflow_text() -> None:
    """Raises UserError where TensorFlow or tensorflow-text is missing, without importing either."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            "An export needs TensorFlow, which is not installed: pip install -r requirements.txt, here or elsewhere; "
            "models trained on JAX are the same there."
        )
    if importlib.util.find_spec("tensorflow_text") is None:
        raise UserError(f"An export needs the package tensorflow-text, which is not installed; {INSTALL}")


def _chunks(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    lines = iter(lines)
    while chunk := list(islice(lines, size)):
        yield chunk
