import numpy as np
import pytest
from inspection_cases import SOURCE, make_model

from nmt.config.schema import SearchSettings
from nmt.data.tokenizer import EOS_ID
from nmt.decoding.inference import search
from nmt.errors import UserError
from nmt.inspection.beam import trace_beam

BANNED = [0, 1, 2]
SETTINGS = {
    "default": {},
    "greedy": {"beam_size": 1},
    "unpruned": {"pruning_threshold": 0.0, "length_penalty": 0.3},
    "pruned": {"beam_size": 8, "pruning_threshold": 1.0},
    "longer": {"min_length": 4, "beam_size": 3},
    "cut": {"max_length": 3},
    "repetition": {"no_repeat_ngram": 2, "repetition_penalty": 1.5},
}


@pytest.fixture(scope="module")
def models():
    """Models that find the end likely, so that hypotheses of several lengths finish."""
    made = [make_model(seed=seed, encoder_layers=1, decoder_layers=1) for seed in (1, 2)]
    for model in made:
        bias = model.projection.bias.value.numpy()
        bias[EOS_ID] += 2
        model.projection.bias.assign(bias)
    return made


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_the_tree_has_the_translation_of_the_real_search(models, changes):
    settings = SearchSettings(**{"max_length": 8, **changes})
    for model in models:
        real = search(model, np.array([SOURCE], "int32"), settings=settings, banned_ids=BANNED)
        length = int(real.lengths[0, 0])
        beam = trace_beam(model, SOURCE, settings=settings, banned_ids=BANNED)
        best = beam.nodes[beam.best]
        assert beam.get_token_ids(beam.best) == np.asarray(real.ids)[0, 0, :length].tolist()
        assert best.score == pytest.approx(float(real.scores[0, 0]), abs=1e-4)
        assert best.log_prob == pytest.approx(float(real.log_probs[0, 0]), abs=1e-4)
        assert (best.fate == "finished") == bool(real.finished[0, 0])


def test_fates_are_told_apart(models):
    fates = {
        node.fate
        for model in models
        for name in ("default", "pruned", "longer")
        for node in trace_beam(model, SOURCE, settings=SearchSettings(**SETTINGS[name]), banned_ids=BANNED).nodes
    }
    assert fates == {"extended", "finished", "pruned", "crowded out", "not pursued"}


def test_only_extended_hypotheses_have_children(models):
    beam = trace_beam(models[0], SOURCE, settings=SearchSettings(), banned_ids=BANNED)
    assert {one for one, node in enumerate(beam.nodes) if node.fate == "extended"} == {
        node.parent for node in beam.nodes[1:]
    }
    for number, node in enumerate(beam.nodes[1:], 1):
        parent = beam.nodes[node.parent]
        assert node.parent < number
        assert node.length == parent.length + 1
        assert node.log_prob <= parent.log_prob
        assert (node.token_id == EOS_ID) == (node.fate == "finished")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.5, "beam_size": 1}, "decoding.temperature: .* no beam to show"),
        ({"coverage_penalty": 0.2}, "decoding.coverage_penalty: .* set it to 0, found 0.2"),
    ],
)
def test_settings_without_a_tree_are_refused(models, changes, message):
    with pytest.raises(UserError, match=message):
        trace_beam(models[0], SOURCE, settings=SearchSettings(**changes), banned_ids=BANNED)


def test_what_is_pruned_is_too_far_behind(models):
    settings = SearchSettings(beam_size=8, pruning_threshold=0.2)
    num_pruned = 0
    for model in models:
        nodes = trace_beam(model, SOURCE, settings=settings, banned_ids=BANNED).nodes
        for length in range(1, max(node.length for node in nodes) + 1):
            unfinished = [node for node in nodes if node.length == length and node.fate != "finished"]
            ended = [node.score for node in nodes if node.length <= length and node.fate == "finished"]
            least = max((node.log_prob for node in unfinished), default=0) - settings.pruning_threshold
            for node in unfinished:
                hope = node.log_prob / settings.get_length_penalty(length + 3)
                is_behind = node.log_prob < least or hope <= max(ended, default=-np.inf)
                assert (node.fate == "pruned") == is_behind
                num_pruned += is_behind
    assert num_pruned > 5
