"""Curves for TensorBoard, written by TensorBoard's own pure Python, so that neither backend is asked for it."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.record_writer import RecordWriter

# What TensorBoard expects at the beginning of a file.
VERSION = "brain.Event:2"


class TensorBoardWriter:
    """One file of curves in a folder that TensorBoard is pointed at.

    (`tensorboard.summary.Writer` does more, but imports TensorFlow wherever that is installed.)

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._records = RecordWriter((folder / name).open("wb"))
        self._write(file_version=VERSION)

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one point to each of several curves, by their tags; they can be seen at once."""
        for tag, value in values.items():
            self._write(step=step, summary=scalar_pb(tag, value))
        self._records.flush()

    def close(self) -> None:
        """Ends the file; a second time is of no harm."""
        self._records.close()

    def _write(self, **content: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
