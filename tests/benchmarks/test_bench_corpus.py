from benchmarks.corpus import add_noise, make_text
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import Tokenizer


def test_noise_repeats_the_text_and_keeps_its_words():
    lines = ["a b c d", "e f"]
    found = list(add_noise(lines, 7, seed=1))
    assert found[:2] == lines
    assert len(found) == 7
    assert all(
        sorted(line.split()) <= sorted(lines[n % 2].split()) or len(line.split()) == 3 for n, line in enumerate(found)
    )
    assert any(line not in lines for line in found)
    assert list(add_noise(lines, 7, seed=1)) == found


def test_the_demo_corpus_serves_where_multi30k_is_not_at_hand(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.corpus.find_multi30k", lambda: None)
    text = make_text(tmp_path / "text")
    assert make_text(tmp_path / "text") == text
    sources, tokens = (read_lines(text.get_file("test", "en", tokens=cut)) for cut in (False, True))
    assert text.join_tokens(tokens) == sources
    assert text.join_tokens(["▁the <unk> ▁end"]) == text.join_tokens(["▁the ▁end"])
    train = Tokenizer.load(text.tokenizer).count_tokens(read_lines(text.get_file("train", "de")))
    assert text.num_train == len(train)
    assert text.target_length == 1 + train.mean()
    assert len(read_lines(text.vocabulary)) == text.vocabulary_size - 4
