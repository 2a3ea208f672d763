"""Back-translation (Sennrich et al. 2016): a model translates target text into sources for it.

The sources come from beam search or sampling (`decoding.temperature`), can have noise (Edunov et al. 2018), and can be
tagged (Caswell et al. 2019).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nmt.config.schema import TagName
from nmt.data.languages import parse_language
from nmt.errors import UserError
from nmt.synthesis.noise import BLANK, add_noise
from nmt.synthesis.pairs import Line, PairMaker, Text, make_synthetic_pairs, read_stored_config
from nmt.translators.protocol import Translator


@dataclass(frozen=True)
class BackTranslation(PairMaker):
    """Pairs of the translation of each line and the line itself.

    Args:
        noise_seed: seed of the noise; None adds none.
    """

    noise_seed: int | None = None

    @property
    def record(self) -> dict[str, Any]:
        """What the pairs depend on."""
        noise = "none" if self.noise_seed is None else f"of seed {self.noise_seed}"
        return {"command": "nmt back-translate", "noise": noise}

    def make_pairs(self, translator: Translator, text: Text, lines: Sequence[Line]) -> Iterable[tuple[str, str]]:
        """Returns the translation of each line, and the line."""
        language = translator.target_language
        if self.noise_seed is not None and parse_language(language).is_written_without_spaces:
            raise UserError(f"--noise drops and moves words, which '{language}' does not separate by spaces.")
        found = translator.translate([line.text for line in lines])
        if self.noise_seed is not None:
            found = [add_noise(one, self.noise_seed, line.number) for one, line in zip(found, lines, strict=True)]
        return zip(found, (line.text for line in lines), strict=True)


def back_translate(
    model: Path,
    texts: Sequence[Path],
    *,
    into: Path,
    noise_seed: int | None = None,
    tag: str | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: int | None = None,
    address: str | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Translates monolingual text of the target language into sources for it.

    Args:
        model: a run folder, a model folder, an ensemble or an export that translates from the target language.
        texts: files of the target language; blank lines are left out and counted.
        into: folder for the pairs.
        noise_seed: seed of the noise that is added to the sources, see `add_noise`; None adds none.
        tag: symbol that training puts before each of the sources, recorded in the fragment.
        settings: decoding settings that replace the model's.
        workers: see `nmt.cluster.pool.translate_missing`.
        address: see `nmt.cluster.pool.translate_missing`.
        log: prints a line.

    Returns:
        The fragment: a YAML file with the entries of `data.train`.

    Raises:
        UserError: see `make_synthetic_pairs`, the tag is not one, or noise is requested for a language without spaces
            between words.
        InterruptionError: a signal arrived; what is finished stays.
    """
    entry = {} if tag is None else {"tag": _check_tag(tag)}
    if own := read_stored_config(model):
        log(f"Targets in {own.data.source_language} get sources in {own.data.target_language}.")
    return make_synthetic_pairs(
        model,
        [Text(path, entry=entry) for path in texts],
        BackTranslation(noise_seed),
        into=into,
        name="back-translated",
        # One token, rather than several that spell it.
        extra={} if noise_seed is None else {"tokenizer": {"user_symbols": [BLANK]}},
        settings=settings,
        workers=workers,
        address=address,
        log=log,
    )


def _check_tag(tag: str) -> str:
    try:
        return TypeAdapter(TagName).validate_python(tag)
    except ValidationError as error:
        raise UserError(f"--tag: {error.errors()[0]['ctx']['error']}.") from error
