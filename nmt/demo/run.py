"""The demonstration: a corpus of our own making, a model of it, its scores, and the same model from an export."""

import json
from collections.abc import Callable
from pathlib import Path

from nmt.config.schema import Config
from nmt.data.corpus import read_lines
from nmt.demo.corpus import make_demo_corpus, score_phenomena, translate_word_by_word
from nmt.evaluation.metrics import bleu

NUM_SHOWN = 5


def run_demo(settings: Config, *, seed: int, log: Callable[[str], None] = print) -> None:
    """Makes the corpus, trains, scores, translates, exports, and translates again through the SavedModel.

    Args:
        settings: the recipe; its corpus is written to the folder of its training text.
        seed: of the corpus.
        log: prints a line.
    """
    folder = settings.data.train[0].source.parent
    if not (folder / "train.en").is_file() or _read_seed(folder) != seed:
        report = make_demo_corpus(folder, seed=seed)
        (folder / "seed.txt").write_text(f"{seed}\n", encoding="utf-8")
        log(f"Made {folder}: {report}")
    from nmt.training.trainer import train

    train(settings, announce=log)
    run = Path(str(settings.run_dir))
    _score(run, folder, log)
    _export(run, folder, log)


def _score(run: Path, folder: Path, log: Callable[[str], None]) -> None:
    """Prints BLEU beside a word-by-word baseline, and the accuracy of each phenomenon, on the held-out sentences."""
    from nmt.evaluation.evaluate import evaluate, report
    from nmt.translators.model import ModelTranslator

    result = evaluate(ModelTranslator.load(run), folder / "test.en", folder / "test.de")
    log(f"\nHeld-out sentences, whose combinations never occur in training:\n{report(result, as_json=False)}")
    sources, references = read_lines(folder / "test.en"), read_lines(folder / "test.de")
    baseline = bleu([translate_word_by_word(line) for line in sources], references, target_language="de")
    log(f"word by word  {baseline:.2f}")
    tags = [json.loads(line) for line in read_lines(folder / "test.tags.jsonl")]
    for name, share in score_phenomena(result.hypotheses, references, tags).items():
        log(f"{name:<20} {100 * share:.1f} %")


def _export(run: Path, folder: Path, log: Callable[[str], None]) -> None:
    """Exports once, and shows that the artefact translates as the model does."""
    from nmt.exporting.savedmodel import export
    from nmt.translators.model import ModelTranslator
    from nmt.translators.savedmodel import SavedModelTranslator

    sentences = read_lines(folder / "test.en")[:NUM_SHOWN]
    from_model = ModelTranslator.load(run, precision="float32").translate(sentences)
    version = export(run, run / "export", log=log)
    from_export = SavedModelTranslator.load(version).translate(sentences)
    log(f"\nFive sentences, translated by the model, and again by {version}:")
    for source, model, exported in zip(sentences, from_model, from_export, strict=True):
        same = "the same" if model == exported else exported
        log(f"  {source}\n    {model}\n    {same}")


def _read_seed(folder: Path) -> int | None:
    path = folder / "seed.txt"
    return int(path.read_text(encoding="utf-8")) if path.is_file() else None
