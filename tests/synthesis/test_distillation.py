import pickle
from pathlib import Path

import pytest
import yaml
from sacrebleu.metrics import BLEU, CHRF
from synthesis_fakes import Fake, Rotated, read_pairs, write_lines, write_model

from nmt.cluster.shards import PerProcess
from nmt.config.file import load_config
from nmt.data.corpus import TextFile
from nmt.errors import InterruptionError, UserError
from nmt.synthesis.distillation import Distillation, distill
from nmt.synthesis.pairs import PairShard, Text

LINES = [("one", "ONE"), ("two", "TWO"), ("three", "THREE"), ("five", "FIVE"), ("six", "SIX")]


def run(into: str = "out", **options):
    logged: list[str] = []
    options = {"config": load_config("base.yaml"), "workers": 1, **options}
    fragment = distill(Path("export"), into=Path(into), log=logged.append, **options)
    return fragment, logged


def list_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.usefixtures("use")
def test_the_training_text_is_translated_and_listed(place):
    fragment, logged = run()
    assert read_pairs(place / "out", "distilled-1") == LINES
    assert read_pairs(place / "out", "distilled-2") == [("a b c d", "A B C D")]
    pairs = [f"distilled-{n}.{side}" for n in (1, 2) for side in ("source", "target")]
    assert list_files(place / "out") == [".lock", ".translation.json", "data.yaml", *pairs]
    assert logged[:2] == ["4 shards.", "Translating 4 shards in this process."]
    assert [line.rpartition(" · ")[0] for line in logged[2:4]] == [
        "shard 1 of 4 · a.en, lines 1 to 3 · 3 lines",
        "shard 2 of 4 · a.en, lines 4 to 6 · 3 lines",
    ]
    assert logged[-2:] == [
        "out/distilled-1.source, distilled-1.target: 5 pairs; lines left out because they or their translations are "
        "blank: 2.",
        "out/distilled-2.source, distilled-2.target: 1 pair.",
    ]
    # A configuration takes the fragment as it is.
    config = yaml.safe_load(Path("base.yaml").read_text("utf-8"))
    config["data"]["train"] += yaml.safe_load(fragment.read_text("utf-8"))["data"]["train"]
    Path("student.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    listed = [(one.source, one.target) for one in load_config("student.yaml").data.train[2:]]
    assert listed == [(Path(f"out/distilled-{n}.source"), Path(f"out/distilled-{n}.target")) for n in (1, 2)]


def test_an_interrupted_distillation_resumes_with_the_missing_shards(place, use):
    run("whole")
    use(Fake("three"))
    with pytest.raises(InterruptionError, match=r"Interrupted\. 1 of 4 shards are translated; run the same command"):
        run()
    assert {path.name for path in (place / "out").iterdir()} == {".lock", ".translation.json", ".work"}
    resumed = use(Fake())
    run()
    assert resumed.read == ["three", "nothing", "five", "six", "a b c d"]
    names = [name for name in list_files(place / "whole") if name.startswith("distilled")]
    assert len(names) == 4
    for name in names:
        assert (place / "out" / name).read_bytes() == (place / "whole" / name).read_bytes()
    # Once more, there is nothing to do.
    again = use(Fake())
    before = list_files(place / "out")
    assert run()[1] == ["The pairs are complete already: out/data.yaml."]
    assert again.read == [] and list_files(place / "out") == before


@pytest.mark.parametrize(("name", "metric"), [("bleu", BLEU(effective_order=True)), ("chrf", CHRF())])
def test_the_hypothesis_nearest_to_the_reference_is_taken(place, use, name, metric):
    write_lines(place / "a.en", "a b c d", "one two three", "x y z")
    write_lines(place / "a.de", "c d a b", "two three one !", "unlike")
    translator = use(Rotated())
    run(nearest=name)
    for (source, target), reference in zip(
        read_pairs(place / "out", "distilled-1"), ["c d a b", "two three one !", "unlike"], strict=True
    ):
        texts = [one.text for one in translator.find(source, n_best=5)]
        scores = [metric.sentence_score(text, [reference]).score for text in texts]
        assert target == texts[scores.index(max(scores))]
    assert read_pairs(place / "out", "distilled-2") == [("a b c d", "c d a b")]


def test_a_corpus_keeps_its_tag_and_weight_and_the_teacher_reads_the_tag(place, use):
    translator = use(Fake())
    config = load_config("base.yaml", ["data.train.1.tag=<2de>", "data.train.1.weight=0.5", "data.train.1.weights=w"])
    fragment, _ = run(config=config)
    assert translator.tags_read == [None, "<2de>"]
    assert read_pairs(place / "out", "distilled-2") == [("a b c d", "A B C D")]
    first, second = yaml.safe_load(fragment.read_text("utf-8"))["data"]["train"]
    assert first.keys() == {"source", "target"}
    assert (second.pop("tag"), second.pop("weight")) == ("<2de>", 0.5)
    assert second.keys() == {"source", "target"}  # without the weights of sentences, some of which may be left out


@pytest.mark.usefixtures("use")
def test_other_text_than_that_of_training_is_translated(place):
    write_lines(place / "captions", "a dog", "", "a cat")
    run(config=None, sources=[Path("captions"), Path("b.en")])
    assert read_pairs(place / "out", "distilled-1") == [("a dog", "A DOG"), ("a cat", "A CAT")]
    assert read_pairs(place / "out", "distilled-2") == [("a b c d", "A B C D")]


@pytest.mark.usefixtures("use")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nearest": "bleau"}, "--nearest: expected bleu or chrf, found 'bleau'. Did you mean 'bleu'?"),
        ({"sources": [Path("b.en")]}, "--source and --config both say what to translate; give one of the two."),
        ({"sources": [Path("b.en")], "config": None, "nearest": "bleu"}, "--nearest needs references, which"),
        ({"config": None}, "export has no config.yaml that lists training text. Give a configuration with --config."),
        ({"sources": [Path("blank")], "config": None}, "Expected text in blank, but all 2 lines are blank."),
        ({"sources": [Path("a.fr")], "config": None}, "There is no file a.fr."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_and_no_pairs(place, options, words):
    write_lines(place / "blank", " ", "")
    with pytest.raises(UserError) as caught:
        run(**options)
    assert str(caught.value).startswith(words)
    assert not any(name.startswith(("distilled", "data")) for name in list_files(place / "out"))


@pytest.mark.usefixtures("use")
def test_a_model_that_translates_nothing_is_one_message_and_no_pairs(place):
    write_lines(place / "b.en", "nothing")
    with pytest.raises(UserError, match=r"^b\.en: all translations are blank\. Train the model further\.$"):
        run()
    assert not {"distilled-2.source", "distilled-2.target", "data.yaml"} & set(list_files(place / "out"))


@pytest.mark.usefixtures("use")
def test_references_are_checked_against_their_text(place):
    write_lines(place / "b.de", "eins", "zwei")
    with pytest.raises(UserError, match=r"same number of lines: b\.en has 1, b\.de has 2\."):
        run(nearest="bleu")
    run()  # for which no references are needed


@pytest.mark.usefixtures("place")
def test_a_beam_of_one_has_nothing_to_choose_from(use):
    translator = use(Fake())
    translator.max_n_best = 1
    with pytest.raises(UserError, match=r"^--nearest chooses among .* expected a beam size of 2 or more, found 1\.$"):
        run(nearest="bleu")


@pytest.mark.usefixtures("use")
def test_a_folder_keeps_to_one_way_of_making_pairs(place):
    run()
    with pytest.raises(UserError, match=r"other settings:\n  nearest: none became chrf\n"):
        run(nearest="chrf")
    write_lines(place / "a.en", *map(str, range(7)))
    with pytest.raises(UserError, match=r"other settings:\n  text: [0-9a-f]+ became [0-9a-f]+\nChoose"):
        run()


@pytest.mark.usefixtures("use")
def test_files_of_others_are_not_replaced(place):
    (place / "out").mkdir()
    write_lines(place / "out/data.yaml", "mine")
    with pytest.raises(UserError, match=r"out/data\.yaml exists and was not made by this command"):
        run()
    assert (place / "out/data.yaml").read_text() == "mine\n"


@pytest.mark.usefixtures("use")
def test_a_model_translates_its_own_training_text_and_that_of_its_languages(place):
    write_model(place / "model")
    distill(Path("model"), into=Path("out"), workers=1, log=lambda line: None)
    assert read_pairs(place / "out", "distilled-1") == LINES
    other = load_config("base.yaml", ["data.target_language=fr"])
    with pytest.raises(UserError, match=r"--config: the model translates from en to de; found .* for en to fr"):
        distill(Path("model"), into=Path("out2"), config=other)
    assert not Path("out2").exists()


def test_a_shard_reaches_a_worker_in_another_process(tmp_path):
    text = Text(tmp_path / "a", tmp_path / "b", {"tag": "<bt>"})
    opened = PerProcess(TextFile.open, (text.path, tmp_path))
    shard = PairShard(text.path, tmp_path / "t", text, range(3, 5), opened, Distillation("chrf"))
    assert pickle.loads(pickle.dumps(shard)) == shard
