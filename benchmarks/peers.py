"""Lists the systems that are compared: nmt first, then its peers."""

from collections.abc import Sequence

from benchmarks import joeynmt, opennmt_py, opennmt_tf
from benchmarks.ours import BFLOAT16, LITERT, NMT, ONE_LAYER
from benchmarks.system import System
from nmt.errors import UserError, suggest_name

PEERS = (joeynmt.SYSTEM, opennmt_py.SYSTEM, opennmt_tf.SYSTEM)
TRAINING = (NMT, BFLOAT16, ONE_LAYER, *PEERS)
TRANSLATION = (NMT, BFLOAT16, LITERT, ONE_LAYER, *PEERS)


def choose_systems(systems: Sequence[System], keys: Sequence[str] | None) -> list[System]:
    """Returns the systems with these keys, or all of them. nmt is always included, as the baseline.

    Raises:
        UserError: if a key is unknown.
    """
    known = [system.key for system in systems]
    for key in keys or ():
        if key not in known:
            raise UserError(
                f"--system: unknown system '{key}'.{suggest_name(key, known)} Choose from {', '.join(known)}."
            )
    return [system for system in systems if not keys or system.key in keys or system is NMT]
