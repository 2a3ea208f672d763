from benchmarks.corpus import make_text, noisy
from nmt.data.corpus import read_lines
from nmt.data.tokenizer import Tokenizer


def test_noise_repeats_the_text_and_keeps_its_words():
    lines = ["a b c d", "e f"]
    found = list(noisy(lines, 7, seed=1))
    assert found[:2] == lines
    assert len(found) == 7
    assert all(
        sorted(line.split()) <= sorted(lines[n % 2].split()) or len(line.split()) == 3 for n, line in enumerate(found)
    )
    assert any(line not in lines for line in found)
    assert list(noisy(lines, 7, seed=1)) == found


def test_the_demo_corpus_serves_where_multi30k_is_not_at_hand(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.corpus.multi30k", lambda: None)
    text = make_text(tmp_path / "text")
    assert make_text(tmp_path / "text") == text
    sources, pieces = (read_lines(text.file("test", "en", pieces=cut)) for cut in (False, True))
    assert text.joined(pieces) == sources
    assert text.joined(["▁the <unk> ▁end"]) == text.joined(["▁the ▁end"])
    train = Tokenizer.load(text.tokenizer).count_tokens(read_lines(text.file("train", "de")))
    assert text.num_train == len(train)
    assert text.target_length == 1 + train.mean()
    assert len(read_lines(text.vocabulary)) == text.num_pieces - 4
