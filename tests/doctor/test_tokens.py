from pathlib import Path

import pytest
from doctor_corpus import PAIRS

from nmt.config.file import load_stored_config
from nmt.config.schema import AugmentConfig, PlaceholderConfig
from nmt.data.corpus import ParallelCorpus
from nmt.data.preparation import DevSet
from nmt.data.token_cache import CachedTokens
from nmt.doctor import tokens as tokens_module
from nmt.doctor.tokens import (
    estimate_token_cache,
    examine_dev,
    examine_lengths,
    examine_placeholders,
    examine_start,
    examine_tags,
    find_longest_pair,
    measure_lengths,
    try_tokenizers,
)
from nmt.model_folder import ModelFolder
from nmt.training.run_folder import RunFolder

MODEL = Path(__file__).parents[1] / "format_1" / "model"


@pytest.fixture
def opened(tmp_path, write, make_config):
    def made(pairs=PAIRS, **tokenizer):
        files = write("train", pairs)
        config = make_config(files, files, **tokenizer)
        return config, ParallelCorpus.open([(files.source, files.target)], tmp_path / "cache")

    return made


def test_a_tokenizer_is_trained_and_nothing_is_written(opened, tmp_path):
    config, corpus = opened()
    (source, target), finding = try_tokenizers(config, corpus, tmp_path / "run")
    assert source is target
    assert (finding.verdict, finding.found) == ("ok", "310 tokens, trained on the whole text")
    assert not (tmp_path / "run").exists()


def test_the_tokenizers_of_the_run_are_used(opened, tmp_path):
    config, corpus = opened()
    (source, _), _ = try_tokenizers(config, corpus, tmp_path / "run")
    for name in ("source.model", "target.model"):
        source.save(tmp_path / "run" / name)
    (found, _), finding = try_tokenizers(config, corpus, tmp_path / "run")
    assert found.fingerprint == source.fingerprint
    assert finding.found == "310 tokens, loaded"


def test_tokenizers_that_training_would_replace_are_not_used(opened, tmp_path):
    """Those of a run without checkpoints: its text may be another than that of its tokenizers."""
    config, corpus = opened()
    folder = RunFolder(tmp_path / "run")
    (other, _), _ = try_tokenizers(opened(vocabulary_size=300)[0], corpus, folder.path)
    for name in ("source.model", "target.model"):
        other.save(folder.path / name)
    folder.config.touch()
    (found, _), finding = try_tokenizers(config, corpus, folder.path)
    assert found.vocabulary_size == 310 and finding.found == "310 tokens, trained on the whole text"
    folder.checkpoints.mkdir()
    (folder.checkpoints / "update-000000001.h5").touch()
    (found, _), finding = try_tokenizers(config, corpus, folder.path)
    assert found.fingerprint == other.fingerprint and finding.found == "300 tokens, loaded"


@pytest.mark.parametrize(("sample", "verdict"), [(1000, "error"), (20, "note")])
def test_a_vocabulary_that_the_text_does_not_allow(opened, tmp_path, monkeypatch, sample, verdict):
    monkeypatch.setattr(tokens_module, "TOKENIZER_SAMPLE", sample)
    config, corpus = opened(vocabulary_size=5000)
    tokenizers, finding = try_tokenizers(config, corpus, tmp_path / "run")
    assert tokenizers is None
    assert finding.verdict == verdict
    assert "found 5000" in finding.found


def test_long_and_unequal_pairs_are_located(opened, tmp_path):
    pairs = list(PAIRS)
    pairs[8] = (" ".join([PAIRS[8][0]] * 40), " ".join([PAIRS[8][1]] * 40))
    pairs[30] = (PAIRS[30][0], " ".join([PAIRS[30][1]] * 6))
    config, corpus = opened(pairs)
    tokenizers, _ = try_tokenizers(config, corpus, tmp_path / "run")
    sample = measure_lengths(corpus, tokenizers)
    long, unequal, quantiles = examine_lengths(config, corpus, sample)
    source = config.data.train[0].source
    assert long.found == f"1 of 60 pairs exceed data.max_length 250 and are dropped, first {source}:9"
    assert unequal.found == f"1 of 60 pairs differ from the usual ratio by more than a factor of 4, first {source}:31"
    assert quantiles.found.startswith("median / 95 % / longest: source ")
    assert find_longest_pair(config, corpus, tokenizers, sample) == (251, 251)


def test_unequal_pairs_are_found_among_sources_without_tokens(opened, tmp_path):
    pairs = [("\u200b", "x")] * 40 + PAIRS[:20]  # a zero-width space has no token
    pairs[7] = ("\u200b", "Was in der Küche steht.")
    config, corpus = opened(pairs)
    tokenizers, _ = try_tokenizers(config, corpus, tmp_path / "run")
    _, unequal, _ = examine_lengths(config, corpus, measure_lengths(corpus, tokenizers))
    assert unequal.found.endswith(f"a factor of 4, first {config.data.train[0].source}:8")


def test_joined_pairs_are_longer_and_within_the_limit(opened, tmp_path):
    config, corpus = opened()
    tokenizers, _ = try_tokenizers(config, corpus, tmp_path / "run")
    sample = measure_lengths(corpus, tokenizers)
    source, target = sample.lengths.max(axis=0).tolist()
    assert find_longest_pair(config, corpus, tokenizers, sample) == (source + 1, target + 1)
    limit = 2 * source - 1
    data = config.data.model_copy(update={"join_pairs": 0.5, "max_length": limit})
    joined = find_longest_pair(config.model_copy(update={"data": data}), corpus, tokenizers, sample)
    assert joined == (limit + 1, min(2 * target, limit) + 1)


def test_capitals_and_a_tag_make_the_longest_pair_longer(opened, tmp_path):
    config, corpus = opened()
    tokenizers, _ = try_tokenizers(config, corpus, tmp_path / "run")
    sample = measure_lengths(corpus, tokenizers)
    [files] = config.data.train
    data = config.data.model_copy(
        update={"augment": AugmentConfig(capitals=0.1), "train": [files.model_copy(update={"tag": "<x>"})]}
    )
    found = find_longest_pair(config.model_copy(update={"data": data}), corpus, tokenizers, sample)
    sides = (corpus.read_sources(sample.indices), corpus.read_targets(sample.indices))
    source, target = (
        max(len(ids) for ids in one.encode([text.upper() for text in side]))
        for one, side in zip(tokenizers, sides, strict=True)
    )
    assert (source, target) > tuple(sample.lengths.max(axis=0))
    assert found == (source + len(tokenizers[0].encode(["<x>"])[0]) + 1, target + 1)


def test_the_size_of_the_token_cache_is_estimated_until_it_exists(opened, tmp_path):
    config, corpus = opened()
    tokenizers, _ = try_tokenizers(config, corpus, tmp_path / "run")
    sample = measure_lengths(corpus, tokenizers)
    estimated = estimate_token_cache(corpus, tokenizers, sample, tmp_path / "cache")
    CachedTokens.open(corpus, *tokenizers, tmp_path / "cache")
    files = CachedTokens.find_files(corpus, *tokenizers, tmp_path / "cache")
    headers_and_checksums = 3 * (128 + 4)
    assert estimated == sum(file.stat().st_size for file in files) - headers_and_checksums
    assert estimate_token_cache(corpus, tokenizers, sample, tmp_path / "cache") == 0


def test_characters_without_a_token_are_unknown(opened, tmp_path):
    config, corpus = opened(vocabulary_size=60, byte_fallback=False)
    tokenizers, _ = try_tokenizers(config, corpus, tmp_path / "run")
    source, target, references = examine_dev(config, [DevSet("dev", ["Ωμέγα"], ["Der Hund."])], tokenizers)
    assert source.verdict == "warning"
    assert target.verdict == "ok"
    assert "0.00% unknown" in target.found
    assert references.verdict == "ok"


@pytest.mark.parametrize(("language", "unit"), [("jpn", "character"), ("yue", "character"), ("deu", "word")])
def test_the_unit_follows_the_language_code(opened, tmp_path, language, unit):
    config, corpus = opened()
    tokenizers, _ = try_tokenizers(config, corpus, tmp_path / "run")
    config = config.model_copy(update={"data": config.data.model_copy(update={"source_language": language})})
    source, *_ = examine_dev(config, [DevSet("dev", ["The dog."], ["Der Hund."])], tokenizers)
    assert f" tokens per {unit}," in source.found


def test_references_that_no_model_can_reproduce_are_counted(opened, tmp_path):
    config, corpus = opened()
    tokenizers, _ = try_tokenizers(config, corpus, tmp_path / "run")
    dev = [DevSet("dev", ["One.", "Two.", "Three."], ["Der Hund.", "Der  Hund.", "½ Hund."])]
    *_, references = examine_dev(config, dev, tokenizers)
    assert references.found.startswith("2 of 3 lines change")
    assert references.found.endswith(f"first line 2 of {config.data.dev.target}")


def test_the_tokenizers_of_the_start_model_are_used(opened, tmp_path):
    config, corpus = opened()
    start = load_stored_config(MODEL / "config.yaml")
    config = start.model_copy(
        update={"data": config.data, "training": start.training.model_copy(update={"start_from": MODEL})}
    )
    config, tokenizers, finding = examine_start(config, tmp_path / "run")
    assert (finding.verdict, finding.found) == ("ok", f"Starting from the weights of {MODEL}, with its tokenizers.")
    (found, _), finding = try_tokenizers(config, corpus, tmp_path / "run", start=tokenizers)
    assert found.fingerprint == ModelFolder.load(MODEL).source_tokenizer.fingerprint
    other = config.model_copy(update={"model": config.model.model_copy(update={"decoder_units": 6})})
    _, tokenizers, finding = examine_start(other, tmp_path / "run")
    assert (tokenizers, finding.verdict) == (None, "error")
    assert "has another architecture" in finding.found
    assert not (tmp_path / "run").exists()


def test_tags_must_be_tokens_of_the_source_tokenizer(opened, tmp_path):
    config, corpus = opened()
    [files] = config.data.train
    data = config.data.model_copy(update={"train": [files.model_copy(update={"tag": "<bt>"})]})
    tagged = config.model_copy(update={"data": data})
    (source, target), _ = try_tokenizers(tagged, corpus, tmp_path / "run")
    [found] = examine_tags(data, (source, target))
    assert (found.verdict, found.found) == ("ok", "each is one token of the source tokenizer: <bt>")
    tokenizers, _ = try_tokenizers(config, corpus, tmp_path / "run")
    [found] = examine_tags(data, tokenizers)
    assert found.verdict == "error"
    assert found.found.startswith("data.train.0.tag: the source tokenizer does not have the symbol <bt>")
    assert list(examine_tags(config.data, tokenizers)) == []


def test_what_placeholders_stand_for_is_counted(opened, tmp_path):
    glossary = tmp_path / "terms.tsv"
    glossary.write_text("car\tAuto\nship\tSchiff\n")
    pairs = [("my car 12", "mein Auto 12"), ("a ship", "ein Boot"), ("7 and 12", "7 und 12")]
    config, corpus = opened([*PAIRS, *pairs])
    placeholders = PlaceholderConfig(kinds=["number", "email", "term"], glossary=glossary)
    data = config.data.model_copy(update={"placeholders": placeholders})
    tokenizers, _ = try_tokenizers(config.model_copy(update={"data": data}), corpus, tmp_path / "run")
    of = f"of {len(corpus)} pairs"
    assert [(one.check, one.verdict, one.found) for one in examine_placeholders(data, corpus, tokenizers)] == [
        ("placeholders: number", "ok", f"on both sides of 2 {of}"),
        (
            "placeholders: email",
            "warning",
            f"on both sides of 0 {of}, so that the model cannot learn what to do with its symbols",
        ),
        ("placeholders: term", "ok", f"on both sides of 1 {of}"),
        ("glossary", "note", f"1 of 2 terms are in no pair {of} with their translation, first ship"),
    ]
    tokenizers, _ = try_tokenizers(config, corpus, tmp_path / "run")
    [found] = examine_placeholders(data, corpus, tokenizers)
    assert found.verdict == "error" and "does not have the symbol <number1>" in found.found
    assert list(examine_placeholders(config.data, corpus, tokenizers)) == []
