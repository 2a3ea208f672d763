"""The lowest loss of each training pair, from batches and outcomes that are written by hand."""

import numpy as np
import pytest

from nmt.data.batching import Batch, pad
from nmt.errors import UserError
from nmt.training import pair_losses
from nmt.training.pair_losses import PairLosses, read_pair_losses
from nmt.training.update import Outcome


def record(losses, pairs, sums, *, weights=None, is_applied=True):
    """Records rows of one, two, three … target tokens, with EOS, whose losses sum up to these."""
    rows = [[5] * n for n in range(len(sums))]
    filled = np.array([1.0] * len(sums) if weights is None else weights, np.float32)
    batch = Batch(0, 0, pad(rows), pad(rows), filled, pairs=np.array(pairs))
    losses.record(batch, Outcome({"loss": 1.0}, 1.0, is_applied, np.array(sums, np.float32)))


def test_each_pair_keeps_its_lowest_loss_per_token(tmp_path):
    losses = PairLosses(tmp_path / "losses.npy", 5, every=2)
    record(losses, [[3], [0]], [4.0, 5.0, 9.0])  # the last row only fills the batch
    assert np.isinf(losses.lowest).all()
    record(losses, [[0], [3]], [3.0, 12.0])
    np.testing.assert_array_equal(losses.lowest, [2.5, np.inf, np.inf, 4, np.inf])
    losses.save()
    np.testing.assert_array_equal(read_pair_losses(losses.path, 5), losses.lowest)


def test_joined_pairs_share_their_loss_and_weights_do_not_scale_it(tmp_path):
    losses = PairLosses(tmp_path / "losses.npy", 5, every=1)
    record(losses, [[3, 1], [0, -1], [4, -1]], [1.0, 3.0, 0.0], weights=[0.5, 0.5, 0.0])
    np.testing.assert_array_equal(losses.lowest, [3, 2, np.inf, 2, np.inf])


def test_an_update_that_was_not_applied_leaves_no_trace(tmp_path):
    losses = PairLosses(tmp_path / "losses.npy", 2, every=1)
    record(losses, [[0]], [1.0], is_applied=False)
    assert np.isinf(losses.lowest).all()


def test_of_a_huge_corpus_every_nth_pair_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(pair_losses, "MAX_PAIRS", 3)
    losses = PairLosses(tmp_path / "losses.npy", 7, every=1)
    record(losses, [[6], [5], [3]], [1.0, 2.0, 6.0])
    np.testing.assert_array_equal(losses.lowest, [np.inf, 2, 1])


def test_what_cannot_be_read_is_named_and_started_afresh(tmp_path):
    path, said = tmp_path / "losses.npy", []
    PairLosses(path, 5, every=1).save()
    with pytest.raises(UserError, match="does not belong to the training text, which has 6 pairs"):
        read_pair_losses(path, 6)
    losses = PairLosses(path, 5, every=1)
    with path.open("wb") as file:
        np.savez(file, losses=losses.lowest)
    another_kind = path.read_bytes()
    for content in (b"", b"\x93NUMPY", another_kind):
        path.write_bytes(content)
        losses.restore(said.append)
        assert f"{path} is damaged" in said[-1] and said[-1].endswith("kept from here on.")
        assert np.isinf(losses.lowest).all()
