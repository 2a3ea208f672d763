"""The steps that all kinds of exports share: load the model and a sample, trace the graph, compare, record."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nmt.config.file import check_value, replace_values
from nmt.config.reference import get_keys, suggest_key
from nmt.config.schema import Config, DevFiles, SearchSettings
from nmt.data.corpus import read_lines
from nmt.data.examples import list_tags, put_tag
from nmt.data.preparation import read_parallel
from nmt.errors import BrokenPromiseError, ExportError, UserError
from nmt.evaluation.promises import Promises, has_errors, read_promises, report_promises
from nmt.exporting.parity import Parity, check_parity, run_artefact, run_python
from nmt.exporting.quantization import Quantization
from nmt.model_folder import ModelFolder, load_members
from nmt.translators.export_record import FORMAT
from nmt.translators.model import ModelTranslator
from nmt.translators.opening import find_folder
from nmt.version import __version__


@dataclass(frozen=True)
class ExportJob:
    """A model to export, with the settings of the export and a sample to compare on."""

    path: Path
    """Folder of the model."""
    folder: ModelFolder
    """Its content, or that of an ensemble's first member; the configuration has the settings of the export."""
    translator: ModelTranslator
    """The model in float32, with which the export is compared."""
    sources: Sequence[str]
    references: Sequence[str] | None
    """Human translations of the sample, if known."""
    quantize: Quantization | None
    promises: Promises | None
    """What the export's translations must contain."""

    @classmethod
    def load(
        cls,
        model: Path | str,
        *,
        sample: Path | str | None,
        quantize: Quantization | None,
        decoding: Mapping[str, Any] | None,
        export: Mapping[str, Any] | None,
        promises: Path | str | None = None,
    ) -> "ExportJob":
        """Loads a model and the sample.

        Args:
            model: a run folder (its best weights), a model folder or an ensemble.
            sample: a file of sentences to compare on, instead of the dev text that the model was trained with.
            quantize: how the weights are stored; None keeps float32.
            decoding, export: settings of these sections of the configuration that differ from the model's.
            promises: a file of promises, instead of the model's data.promises.

        Raises:
            UserError: there is no such model or sample, or a setting is unknown or invalid.
        """
        path = find_folder(Path(model)).resolve()
        folder = _describe_members(load_members(path))
        config = change_config(folder.config, decoding=decoding or {}, export=export or {})
        check_searches_once(config.decoding)
        translator = ModelTranslator.load(path, precision="float32").with_settings(**decoding or {})
        if config.export.interactive and translator.model.right_to_left:
            raise UserError(
                "export.interactive: this model writes from right to left (model.right_to_left), so that it cannot go "
                "on after a prefix. Set it to false."
            )
        sources, references = read_sample(config.dev_sets[0], sample, config.export.sample)
        # The model adds `decoding.tag` to texts without a tag, and placeholders. An artefact does not.
        protected = [translator.terms.protect(translator.write_tag(source)) for source in sources]
        sources = [one.text for one in protected]
        if references is not None:
            references = [one.put_symbols(text) for one, text in zip(protected, references, strict=True)]
        entries = find_promises(config, promises)
        return cls(path, replace(folder, config=config), translator, sources, references, quantize, entries)

    @property
    def config(self) -> Config:
        """The model's configuration, with the settings of the export."""
        return self.folder.config

    def trace(self, folder: Path, *, program: str = "nmt.exporting.graph") -> None:
        """Writes the graph to a folder, in a process in which Keras finds no GPU and therefore uses no cuDNN.

        Raises:
            ExportError: the process fails.
        """
        settings = {"decoding": self.translator.settings.model_dump(mode="json", exclude={"precision"})}
        settings["export"] = self.config.export.model_dump(mode="json")
        options = ["--settings", json.dumps(settings)]
        if self.quantize is not None and self.quantize.precision != "float32":
            options += ["--precision", self.quantize.precision]
        elif self.quantize is not None:
            options += ["--quantize", self.quantize.kind]
        # The process must find this toolkit wherever it is started from.
        toolkit = str(Path(__file__).parents[2])
        search_path = os.pathsep.join(filter(None, [toolkit, os.environ.get("PYTHONPATH")]))
        hidden = {"CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow", "PYTHONPATH": search_path}
        run_python(["-m", program, str(self.path), str(folder), *options], ExportError, {**os.environ, **hidden})

    def check(self, folder: Path) -> Parity:
        """Compares an artefact with the model; see `check_parity`."""
        return check_parity(folder, self.translator.without_terms(), self.sources, self.references, self.quantize)

    def explain_placeholders(self, log: Callable[[str], None]) -> None:
        """Logs what clients must do that call the artefact, if the model was trained with placeholders."""
        if symbols := self.translator.terms.placeholders.symbols:
            log(
                f"The artefact reads and writes {symbols[0]} and the like (data.placeholders) as they are: programs "
                "that call it put these symbols in place of what is copied, and take them out again, as nmt translate "
                "and nmt serve do."
            )

    def check_promises(self, folder: Path, log: Callable[[str], None]) -> None:
        """Checks that the translations of an artefact keep the promises, if there are any.

        Raises:
            BrokenPromiseError: they break one whose severity is error.
        """
        if self.promises is None:
            if stored := self.config.data.promises:
                log(
                    f"Warning: The promises in {stored} (data.promises) are not checked, because the file no longer "
                    "exists. Name a file of promises with --promises FILE."
                )
            return
        terms = self.translator.terms
        protected = [terms.protect(self.translator.write_tag(source)) for source in self.promises.sources]
        found = run_artefact(folder, [one.text for one in protected])["translations"]
        outcomes = self.promises.check([one.restore_text(text) for one, text in zip(protected, found, strict=True)])
        log(report_promises(outcomes))
        if has_errors(outcomes):
            raise BrokenPromiseError("The export breaks promises, so nothing was written. They are listed above.")

    def make_record(self, packages: Sequence[str], **facts: Any) -> dict[str, Any]:
        """Returns the content of export.json.

        Args:
            packages: names of the packages whose versions matter.
            facts: entries that only this kind of export has.
        """
        precision = self.quantize.precision if self.quantize else "float32"
        return {
            "format": FORMAT,
            "source_language": self.config.data.source_language,
            "target_language": self.config.data.target_language,
            "decoding": {**self.translator.settings.model_dump(), "precision": precision},
            **({"tags": tags} if (tags := list_tags(self.config.data)) else {}),
            **({"placeholders": symbols.as_record()} if (symbols := self.translator.terms.placeholders).kinds else {}),
            **({"confidence": asdict(fitted)} if (fitted := self.translator.fitted_confidence) else {}),
            **facts,
            "model": {"path": str(self.path), **self.folder.facts},
            "versions": {"nmt": __version__, **{name: version(name) for name in packages}},
        }


def check_searches_once(settings: SearchSettings) -> None:
    """Raises UserError if the settings choose among translations after the search, which no graph does."""
    for name, remedy in (("mbr", "none"), ("on_warning", "keep")):
        if (found := getattr(settings, name)) != remedy:
            raise UserError(
                f"decoding.{name} is {found}, but an export returns what its search finds. Export with "
                f"decoding.{name}={remedy}, or translate with the model itself."
            )


def find_promises(config: Config, given: Path | str | None) -> Promises | None:
    """Returns the promises of a file if one is given, or else those that the model was trained with.

    Returns:
        None if there are none, or if the file that the model was trained with no longer exists.

    Raises:
        UserError: the given file is missing, or a file is not a list of promises.
    """
    stored = config.data.promises
    if given is not None:
        return read_promises(Path(given))
    return read_promises(stored) if stored and stored.is_file() else None


def _describe_members(members: Sequence[ModelFolder]) -> ModelFolder:
    """Returns the first member, with the facts of all of them if there are several."""
    first = members[0]
    if len(members) == 1:
        return first
    facts = {**first.facts, "members": [dict(member.facts) for member in members]}
    return replace(first, facts=facts, confidence=None)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Writes export.json."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def change_config(config: Config, **sections: Mapping[str, Any]) -> Config:
    """Returns a configuration with other values, given by section and key; None leaves one unchanged.

    Raises:
        UserError: a key is unknown, a value is invalid, or values do not go together.
    """
    if sections["decoding"].get("precision") is not None:
        raise UserError(
            "decoding.precision is not a setting of an export, which computes in float32. Use --precision bfloat16 "
            "(Quantization in Python) to export a model that computes in bfloat16."
        )
    values = {
        f"{section}.{key}": value
        for section, changes in sections.items()
        for key, value in changes.items()
        if value is not None
    }
    for key, value in values.items():
        if key not in get_keys():
            raise UserError(f"{key}: unknown key.{suggest_key(key)}")
        check_value(key, value, key)
    return replace_values(config, values, "Settings of the export", is_stored=True)


def read_sample(dev: DevFiles, sample: Path | str | None, size: int) -> tuple[list[str], Sequence[str] | None]:
    """Returns the first `size` sentences to compare on, and their references if they are known.

    Raises:
        UserError: a file is missing or empty.
    """
    if sample is not None:
        sources = read_lines(Path(sample))
        if not any(line.strip() for line in sources[:size]):
            raise UserError(
                f"{sample} is empty, or its first {size} lines (export.sample) are blank. Expected sentences on which "
                "to compare the export with the model."
            )
        return sources[:size], None
    if not dev.source.is_file() or not dev.target.is_file():
        missing = dev.target if dev.source.is_file() else dev.source
        raise UserError(
            f"The export is compared with the model on the dev text, but {missing} no longer exists. Name a file of "
            "sentences, one per line, with --sample FILE."
        )
    sources, references = read_parallel(dev.source, dev.target)
    if not any(line.strip() for line in sources[:size]):
        raise UserError(
            f"The export is compared with the model, but the first {size} lines of {dev.source}, the dev text, are "
            "blank. Name a file of sentences, one per line, with --sample FILE."
        )
    return [put_tag(dev.tag, source) for source in sources[:size]], references[:size]
