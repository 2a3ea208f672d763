from soak import soak


def test_a_kill_while_a_checkpoint_is_half_written_changes_nothing(tmp_path):
    """Dropout and subword sampling are on."""
    result = soak(tmp_path, kills=1, in_writing=1)
    assert result.in_writing >= 1
    assert result.resumes == len(result.kills)
    assert result.lost == 0
    assert result.same_weights
