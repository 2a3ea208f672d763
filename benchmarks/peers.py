"""All that are compared: this toolkit first, then its peers."""

from collections.abc import Sequence

from benchmarks import joeynmt, opennmt_py, opennmt_tf
from benchmarks.ours import BFLOAT16, LITERT, NMT, ONE_LAYER
from benchmarks.system import System
from nmt.errors import UserError, nearest

PEERS = (joeynmt.SYSTEM, opennmt_py.SYSTEM, opennmt_tf.SYSTEM)
TRAINING = (NMT, BFLOAT16, ONE_LAYER, *PEERS)
TRANSLATION = (NMT, BFLOAT16, LITERT, ONE_LAYER, *PEERS)


def chosen(systems: Sequence[System], keys: Sequence[str] | None) -> list[System]:
    """The systems with these keys, or all of them; ours is always among them, since ratios need it.

    Raises:
        UserError: there is no system with such a key.
    """
    known = [system.key for system in systems]
    for key in keys or ():
        if key not in known:
            raise UserError(f"--system: there is no '{key}'.{nearest(key, known)} Known are {', '.join(known)}.")
    return [system for system in systems if not keys or system.key in keys or system is NMT]
