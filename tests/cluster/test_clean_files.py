"""`nmt clean`, with models that find in a text how probable it is."""

from pathlib import Path
from typing import ClassVar

import pytest

from nmt.cluster import cleaning
from nmt.cluster.cleaning import Rules, ScoreRule, clean_files
from nmt.config.file import config_from_text, dump_config
from nmt.config.schema import SearchSettings
from nmt.data.cleaning import CleaningReport
from nmt.data.corpus import ParallelCorpus
from nmt.data.tokenizer import train_tokenizer
from nmt.errors import InterruptionError, UserError
from nmt.translators import opening
from nmt.translators.hypothesis import ScoredTranslation
from nmt.translators.protocol import Translator

# The number that ends a line is the log-probability per token that a model gives it.
PAIRS = [
    ("one -1", "eins -0.5"),
    ("two -0.2", "zwei -0.3"),
    ("blank -1", " "),
    ("three -4", "drei -0.1"),
    ("two -0.2", "zwei -0.3"),
    ("four -2", "vier -2"),
    ("same -1", "same -1"),
    ("five -1", "long " * 80 + "-0.1"),
    ("", "blank -1"),
]
RULES = Rules(drop_identical=True, drop_duplicates=True)


class Scorer(Translator):
    """Scores pairs by the number that ends their second side; Ctrl-C arrives at `interrupt_at`."""

    settings = SearchSettings()
    interrupt_at = ""
    read: ClassVar[list[str]] = []

    def with_settings(self, **changes):
        raise AssertionError

    count_tokens = translate_batch = with_settings

    def score(self, pairs):
        for source, target in pairs:
            if target == Scorer.interrupt_at:
                raise KeyboardInterrupt
            Scorer.read.append(target)
            log_prob = float(target.split()[-1])
            yield ScoredTranslation(source, target, ["a", "</s>"], [log_prob - 0.25, log_prob + 0.25])


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """A folder with text and with models in both directions that read up to 60 tokens. Shards have two pairs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cleaning, "SHARD_PAIRS", 2)
    monkeypatch.setattr(opening, "open_translator", lambda path, **settings: Scorer())
    monkeypatch.setattr(Scorer, "interrupt_at", "")
    monkeypatch.setattr(Scorer, "read", [])
    lines = [line for pair in PAIRS for line in pair if line.strip()]
    tokenizer = train_tokenizer(lines, kind="bpe", vocabulary_size=300)
    for name, source, target in (("model", "en", "de"), ("back", "de", "en")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.h5").touch()
        for side in ("source", "target"):
            tokenizer.save(tmp_path / name / f"{side}.model")
        config = config_from_text(
            f"data: {{source_language: {source}, target_language: {target}, max_length: 60, "
            "train: [{source: a, target: b}], dev: {source: a, target: b}}\ntraining: {max_epochs: 1}",
            "the test",
        )
        (tmp_path / name / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    for file, side in (("a.en", 0), ("a.de", 1)):
        (tmp_path / file).write_text("".join(f"{pair[side]}\n" for pair in PAIRS))
    return tmp_path


def run(by_score: ScoreRule | None = None, rules: Rules = RULES, into: str = "out", log=lambda line: None, **changes):
    files = {"source": Path("a.en"), "target": Path("a.de"), **changes}
    return clean_files(**files, into=Path(into), rules=rules, by_score=by_score, workers=1, log=log)


def by_score(reverse: str | None = None, **threshold) -> ScoreRule:
    return ScoreRule(Path("model"), Path(reverse) if reverse else None, **threshold)


def read_kept(into: str = "out") -> list[int]:
    """Returns the numbers of the lines that were kept, from 1."""
    kept = list(zip(*(Path(into, name).read_text().splitlines() for name in ("a.en", "a.de")), strict=True))
    verdicts = [line.split("\t") for line in Path(into, "verdicts.tsv").read_text().splitlines()[1:]]
    assert [int(number) for number, *_ in verdicts] == list(range(1, len(PAIRS) + 1))
    numbers = [int(number) for number, verdict, *_ in verdicts if verdict == "kept"]
    assert kept == [PAIRS[number - 1] for number in numbers]
    return numbers


def test_rules_need_no_model():
    report = run()
    assert report == CleaningReport(9, 5, {"drop_identical": 1, "drop_duplicates": 1, "blank": 2})
    assert read_kept() == [1, 2, 4, 6, 8]
    assert not Path("out/.work").exists()


def test_improbable_targets_are_dropped_and_each_line_has_its_verdict():
    logged: list[str] = []
    report = run(by_score(min_score=-0.5), log=logged.append)
    dropped = {"max_length": 1, "drop_identical": 1, "drop_duplicates": 1, "score": 1, "blank": 2}
    assert report == CleaningReport(9, 3, dropped)
    assert read_kept() == [1, 2, 4]
    assert Path("out/verdicts.tsv").read_text().splitlines() == [
        "line\tverdict\tscore",
        "1\tkept\t-0.5000",
        "2\tkept\t-0.3000",
        "3\tblank\t",
        "4\tkept\t-0.1000",
        "5\tdrop_duplicates\t",
        "6\tscore\t-2.0000",
        "7\tdrop_identical\t",
        "8\tmax_length\t",
        "9\tblank\t",
    ]
    assert "Scoring 2 shards in this process." in logged
    assert logged[-1].startswith("Quantiles of the scores: 0% -2.00, ") and logged[-1].endswith("; kept from -0.5000.")


def test_a_share_is_kept_and_another_threshold_costs_no_scoring():
    run(by_score(keep=0.5))
    assert read_kept() == [2, 4]
    assert len(Scorer.read) == 4
    run(by_score(keep=0.25))
    assert read_kept() == [4]
    assert len(Scorer.read) == 4
    with pytest.raises(
        UserError, match=r"^out holds a corpus made with other settings:\n  drop_duplicates: True became"
    ):
        run(by_score(keep=0.25), Rules(drop_identical=True))


def test_a_command_that_is_refused_leaves_nothing_behind():
    source, target = Path("a.txt"), Path("b.txt")
    source.write_text("one\ntwo\n")
    target.write_text("eins\n")
    with pytest.raises(UserError, match="must have the same number of lines"):
        clean_files(source, target, into=Path("new"), rules=RULES)
    assert not Path("new").exists()
    run(by_score(keep=0.5))
    before = sorted(Path("out").rglob("*"))
    with pytest.raises(UserError, match="made with other settings"):
        run(by_score(keep=0.5), Rules(drop_identical=True))
    assert sorted(Path("out").rglob("*")) == before


def test_two_directions_give_dual_conditional_cross_entropy():
    """-|H - H'| - (H + H') / 2: a target that only one of the models expects is dropped."""
    run(by_score("back", keep=0.5))
    assert read_kept() == [1, 2]
    rows = [line.split("\t") for line in Path("out/verdicts.tsv").read_text().splitlines()]
    assert rows[0][2:] == ["score", "forward", "reverse"]
    assert [[float(x) for x in rows[n][2:]] for n in (1, 2, 4, 6)] == [
        [-1.25, -0.5, -1],
        [-0.35, -0.3, -0.2],
        [-5.95, -0.1, -4],
        [-2, -2, -2],
    ]


def test_a_command_that_was_interrupted_resumes(monkeypatch):
    monkeypatch.setattr(Scorer, "interrupt_at", "drei -0.1")
    with pytest.raises(InterruptionError, match=r"^Interrupted\. 1 of 2 shards are scored; run the same command"):
        run(by_score(keep=0.5))
    assert Scorer.read == ["eins -0.5", "zwei -0.3"]
    assert not Path("out/a.en").exists() and not Path("out/verdicts.tsv").exists()
    monkeypatch.setattr(Scorer, "interrupt_at", "")
    run(by_score(keep=0.5))
    assert Scorer.read == ["eins -0.5", "zwei -0.3", "drei -0.1", "vier -2"]
    assert read_kept() == [2, 4]


def test_the_text_is_opened_once_for_all_shards(monkeypatch):
    opened = []
    open_corpus = ParallelCorpus.open
    monkeypatch.setattr(ParallelCorpus, "open", lambda *given: opened.append(given) or open_corpus(*given))
    run(by_score("back", keep=0.5))
    assert len(opened) == 1


def test_rules_may_change_until_a_shard_is_scored(monkeypatch):
    monkeypatch.setattr(Scorer, "interrupt_at", "eins -0.5")
    with pytest.raises(InterruptionError, match="0 of 3 shards"):
        run(by_score(keep=0.5), Rules(drop_duplicates=True))
    monkeypatch.setattr(Scorer, "interrupt_at", "")
    run(by_score(keep=0.5))
    assert read_kept() == [2, 4]


def test_files_of_two_runs_never_stand_side_by_side(monkeypatch):
    run(by_score(keep=0.5))
    replace = Path.replace
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Path, "replace", lambda path, to: 1 / 0 if to == Path("out/a.en") else replace(path, to))
        run(by_score(keep=0.25))
    assert not Path("out/a.en").exists() and Path("out/a.de").read_text() == "drei -0.1\n"
    run(by_score(keep=0.25))
    assert read_kept() == [4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rules": Rules()}, "Expected a filter: --by-score MODEL, --drop-identical or --drop-duplicates."),
        ({"rules": Rules(max_ratio=2)}, "--max-ratio counts tokens of the model of --by-score. Add that model."),
        ({"by_score": ScoreRule(Path("model"))}, "--by-score needs one of --min-score, the lowest score"),
        ({"by_score": ScoreRule(Path("model"), None, -1, 0.5)}, "--by-score needs one of --min-score"),
        ({"by_score": ScoreRule(Path("model"), keep=1)}, "--keep: expected a share above 0 and below 1"),
        ({"by_score": ScoreRule(Path("model"), min_score=0.5)}, "--min-score: expected 0 or less"),
        ({"by_score": ScoreRule(Path("nowhere"), keep=0.5)}, "There is no folder nowhere."),
        (
            {"by_score": ScoreRule(Path("model"), Path("model"), keep=0.5)},
            "--reverse: expected a model from de to en, because model translates from en to de; model translates",
        ),
        ({"source": Path("missing.en")}, "There is no file missing.en."),
        ({"into": "."}, ". holds the text to clean. Choose another folder with --into."),
        ({"source": Path("b/a.de")}, "b/a.de and a.de have the same name"),
        ({"source": Path("b/verdicts.tsv")}, "b/verdicts.tsv has the name of something else that nmt clean writes"),
    ],
)
def test_mistakes_are_one_message_and_nothing_is_written(arguments, message):
    with pytest.raises(UserError) as caught:
        run(**arguments)
    assert str(caught.value).startswith(message)
    assert not Path("out").exists()


def test_a_threshold_that_leaves_nothing_writes_nothing():
    with pytest.raises(UserError, match=r"^Cleaning left no sentence pair\. Relax its limits\.\n0 of 9 sentence pairs"):
        run(by_score(min_score=0))
    assert not Path("out/a.en").exists()


def test_rules_that_leave_nothing_may_be_relaxed():
    with pytest.raises(UserError, match=r"^Cleaning left no sentence pair\. Relax its limits\."):
        run(by_score(keep=0.5), Rules(max_length=1))
    run(by_score(keep=0.5))
    assert read_kept() == [2, 4]
