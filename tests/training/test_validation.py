from types import SimpleNamespace

import numpy as np
import pytest

from nmt.data.preparation import DevSet
from nmt.data.tokenizer import EOS_ID
from nmt.decoding import grouping
from nmt.evaluation.metrics import bleu
from nmt.evaluation.promises import Promise, Promises
from nmt.training.validation import Validation, Validator, _make_batches, explain_zero_bleu
from nmt.training.workers import Workers


class Letters:
    """A piece for each letter."""

    def encode(self, texts):
        return [[4 + ord(letter) - ord("a") for letter in text] for text in texts]


DEV = DevSet("dev", ["abc", "a" * 17, "b", "cabcabc", ""], ["cb", "b" * 20, "c", "a", "abcd"])


@pytest.mark.parametrize("each_shape", [False, True])
def test_every_pair_is_validated_once_and_what_fills_up_does_not_count(monkeypatch, each_shape):
    monkeypatch.setattr(grouping, "has_static_shapes", lambda: each_shape)
    pairs = []
    for source, target in _make_batches(DEV, (Letters(), Letters()), batch_tokens=64):
        assert len(source) == len(target)
        for row, other in zip(source, target, strict=True):
            assert np.count_nonzero(row == EOS_ID) == 1  # the encoder takes no empty row
            if other.any():
                pairs.append((row[row != 0].tolist(), other[other != 0].tolist()))
    sides = Letters().encode(DEV.sources), Letters().encode(DEV.targets)
    assert sorted(pairs) == sorted(([*s, EOS_ID], [*t, EOS_ID]) for s, t in zip(*sides, strict=True))


class EchoingTranslator:
    """Returns what the test says it should for each source."""

    def __init__(self, translations):
        self.translations = translations

    def translate(self, sources, *, split):
        return [self.translations[source] for source in sources]


def test_what_is_compiled_before_the_first_validation_is_what_it_uses():
    dev = [DevSet("dev", ["", "a", "abc"], ["c", "a", "cba"])]
    validator = Validator(None, SimpleNamespace(dev=dev), Workers())
    used = []
    validator.__dict__ |= {  # cached properties
        "translator": SimpleNamespace(translate=lambda sources, *, split: used.append((sources, split))),
        "batches": [(0, 10.0, 4.0), (0, 9.0, 2.0)],
        "sum_loss": lambda loss, count: used.append((loss, count)),
    }
    validator.compile()
    assert used == [(10.0, 4.0), (["abc"], False)]


def test_every_dev_set_may_be_the_reason_for_a_bleu_of_0():
    sets = [
        SimpleNamespace(source="a.en", target="a.de", target_language="de"),
        SimpleNamespace(source="b.en", target="b.zh", target_language="zh"),
    ]
    assert explain_zero_bleu(SimpleNamespace(dev_sets=sets), Validation(3.0, 20.06, 0.0)) == (
        "Either the model has not learned enough yet (its perplexity is 20.1 and should fall), or target_language does "
        "not fit the text ('de' makes sacreBLEU split a.de by the tokenizer 13a, 'zh' makes sacreBLEU split b.zh by "
        "the tokenizer zh), or the lines of a.de do not translate those of a.en, or the lines of b.zh do not translate "
        "those of b.en."
    )


def test_dev_sets_are_scored_each_and_together():
    dev = [
        DevSet("de", ["<2de> a", "<2de> b"], ["Der Hund bellt laut.", "Die Katze schläft heute."]),
        DevSet("fr", ["<2fr> a"], ["Le chien aboie très fort."]),
        DevSet("zh", ["<2zh> a"], ["狗在大声叫着。"], "zh"),
    ]
    config = SimpleNamespace(
        data=SimpleNamespace(target_language="de"), training=SimpleNamespace(best_by="chrf"), decoding=None
    )
    validator = Validator(config, SimpleNamespace(dev=dev), Workers())
    validator.__dict__ |= {  # cached properties
        "model": SimpleNamespace(trainable_variables=[]),
        "translator": EchoingTranslator(
            {
                "<2de> a": "Der Hund bellt laut.",
                "<2de> b": "Die Katze schläft heute.",
                "<2fr> a": "Le chien aboie fort.",
                "<2zh> a": "狗大声叫着。",
            }
        ),
        "batches": [(0, 10.0, 4.0), (1, 9.0, 2.0), (0, 2.0, 2.0), (2, 0.0, 2.0)],
        "sum_loss": lambda loss, count: (loss, count),
    }
    found = validator.validate({})
    french = bleu(["Le chien aboie fort."], dev[1].targets, target_language="de")
    assert 0 < french < 100
    chinese = found.sets["zh"].bleu
    assert chinese == bleu(["狗大声叫着。"], dev[2].targets, target_language="zh") > 0
    assert chinese != bleu(["狗大声叫着。"], dev[2].targets, target_language="de")
    assert found.bleu == pytest.approx((100 + french + chinese) / 3)
    assert found.score("bleu") == found.bleu
    record = found.as_record()
    assert record["loss"] == pytest.approx(21 / 10)
    assert (record["loss/de"], record["loss/fr"]) == (2.0, 4.5)
    assert (record["bleu/de"], record["bleu/fr"]) == (pytest.approx(100), french)
    assert record["chrf"] == pytest.approx((record["chrf/de"] + record["chrf/fr"] + record["chrf/zh"]) / 3)
    assert record["perplexity/fr"] == pytest.approx(np.exp(4.5))
    assert str(found).startswith(f"BLEU {found.bleu:.2f} (de 100.00, fr {french:.2f}, zh {chinese:.2f}) · chrF ")
    # Promises are translated after the dev sets, and do not change their scores.
    kept = [Promise(source="<2de> a", contains=("Hund",), tag="x"), Promise(source="<2de> b", contains=("Maus",))]
    validator.promises = Promises(kept, ["p.yaml:1", "p.yaml:2"])
    promised = validator.validate({})
    assert promised.as_record() == {**record, "promises/all": 0.5, "promises/x": 1.0}
    assert str(promised) == f"{found} · promises 1 of 2"
    validator.promises = None
    # One set is what it was before there could be several.
    validator.data.dev, validator.__dict__["batches"] = dev[:1], [(0, 10.0, 4.0)]
    alone = validator.validate({})
    assert set(alone.as_record()) == {"loss", "perplexity", "bleu", "chrf"}
    assert str(alone).startswith("BLEU 100.00 · chrF ")
