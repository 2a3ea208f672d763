from soak import soak


def test_two_kills_change_nothing(tmp_path):
    """One of them while a checkpoint is half written; dropout and subword sampling are on."""
    result = soak(tmp_path, kills=2, in_writing=1)
    assert len(result.kills) >= 2
    assert result.in_writing >= 1
    assert result.resumes == len(result.kills)
    assert result.lost == 0
    assert result.same_weights
