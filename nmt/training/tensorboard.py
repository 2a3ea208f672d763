"""Writes files for TensorBoard: curves, texts, pictures of attention, and embeddings for its projector.

It uses TensorBoard's pure Python, so that it works on both backends. `tensorboard.summary.Writer` would import
TensorFlow wherever that is installed.
"""

import io
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from nmt.data.tokenizer import Tokenizer
from nmt.decoding.word_links import WordLinks
from nmt.files import atomic_write

# The first record of a file that TensorBoard reads.
FILE_VERSION = "brain.Event:2"
# Tokens of the projector, by their ids: the most frequent ones come first, and a browser cannot move many more.
MAX_POINTS = 5000
CELL, MARGIN, FONT_SIZE = 22, 6, 13  # pixels
# Fonts of the system for Chinese, Japanese and Korean, which begin at U+2E80, and for all else. Without them Pillow's
# own font is used. A letter that the font lacks becomes a box.
FIRST_CJK = "\u2e80"
CJK_FONTS = ("NotoSansCJK-Regular.ttc", "fonts-japanese-gothic.ttf", "wqy-microhei.ttc")
FONTS = ("DejaVuSans.ttf",)


class TensorBoardWriter:
    """Writes one file of events, and the files of the projector.

    Args:
        folder: created if it is missing.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._records = RecordWriter((folder / name).open("wb"))
        self._write(file_version=FILE_VERSION)

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one point to each of several curves, by their tags, and flushes them to the file."""
        for tag, value in values.items():
            self._write(step=step, summary=scalar_pb(tag, value))
        self._records.flush()

    def add_texts(self, step: int, texts: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        """Adds a table of names and texts under each of several tags."""
        for tag, rows in texts.items():
            self._write(step=step, summary=text_pb(tag, np.array(rows, object)))
        self._records.flush()

    def add_attention(self, step: int, pictures: Mapping[str, WordLinks]) -> None:
        """Adds a picture of attention under each of several tags."""
        for tag, links in pictures.items():
            width, height, png = draw_attention(links)
            summary = Summary()
            tensor = make_tensor_proto([str(width).encode(), str(height).encode(), png], dtype=np.object_)
            summary.value.add(tag=tag, metadata=create_summary_metadata(None, ""), tensor=tensor)
            self._write(step=step, summary=summary)
        self._records.flush()

    def write_embeddings(self, tables: Mapping[str, tuple[np.ndarray, Tokenizer]]) -> None:
        """Writes the vectors [V, E] of tokens for the projector, which shows the last ones written.

        Args:
            tables: vectors and their tokenizer by the name of their table. The first `MAX_POINTS` of each are written.
        """
        config = ProjectorConfig()
        for name, (vectors, tokenizer) in tables.items():
            few = np.ascontiguousarray(vectors[:MAX_POINTS], np.float32)
            names = "".join(f"{_name_token(tokenizer.get_token(n))}\n" for n in range(len(few)))
            for suffix, content in ((".bytes", few.tobytes()), (".tsv", names.encode())):
                with atomic_write(self.folder / f"{name}{suffix}") as aside:
                    aside.write_bytes(content)
            config.embeddings.add(
                tensor_name=name, tensor_shape=few.shape, tensor_path=f"{name}.bytes", metadata_path=f"{name}.tsv"
            )
        with atomic_write(self.folder / "projector_config.pbtxt") as aside:
            aside.write_text(str(config), encoding="utf-8")

    def close(self) -> None:
        """Closes the file. It may be called again."""
        self._records.close()

    def _write(self, **content: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())


def _name_token(token: str) -> str:
    """Returns a token as a line of the projector's table, in which a blank line would be left out.

    >>> _name_token("▁Haus"), _name_token(" "), _name_token("\\n")
    ('▁Haus', '\\\\x20', '\\\\n')
    """
    if token.strip() and token.isprintable():
        return token
    return "".join(f"\\x{ord(letter):02x}" if letter == " " else repr(letter)[1:-1] for letter in token)


def draw_attention(links: WordLinks) -> tuple[int, int, bytes]:
    """Draws attention with source words above and target words on the left.

    Returns:
        Width and height in pixels, and the picture as PNG.
    """
    from PIL import Image, ImageDraw

    above, left = ([_draw_word(word) for word in words] for words in (links.source, links.target))
    margin_x, margin_y = (max((word.width for word in side), default=0) + 2 * MARGIN for side in (left, above))
    num_rows, num_columns = links.weights.shape
    picture = Image.new("L", (margin_x + CELL * num_columns + MARGIN, margin_y + CELL * num_rows + MARGIN), 255)
    for n, word in enumerate(above):
        turned = word.rotate(90, expand=True)
        picture.paste(turned, (margin_x + CELL * n + (CELL - turned.width) // 2, margin_y - MARGIN - turned.height))
    for n, word in enumerate(left):
        picture.paste(word, (margin_x - MARGIN - word.width, margin_y + CELL * n + (CELL - word.height) // 2))
    draw = ImageDraw.Draw(picture)
    for (row, column), weight in np.ndenumerate(links.weights):
        x, y = margin_x + CELL * column, margin_y + CELL * row
        # Grey alone: it is safe for colour-blind readers and prints.
        draw.rectangle((x, y, x + CELL - 2, y + CELL - 2), fill=round(240 * (1 - min(max(float(weight), 0), 1))))
    content = io.BytesIO()
    picture.save(content, "PNG")
    return picture.width, picture.height, content.getvalue()


def _draw_word(word: str) -> Any:
    """Returns a word in black on white, as high as a cell at most."""
    from PIL import Image, ImageDraw

    font = _choose_font(word)
    left, _, right, _ = font.getbbox(word)
    picture = Image.new("L", (max(1, int(right - left) + 1), CELL - 2), 255)
    ImageDraw.Draw(picture).text((-left, (CELL - 2) // 2), word, fill=0, font=font, anchor="lm")
    return picture


def _choose_font(word: str) -> Any:
    from PIL import ImageFont

    for name in CJK_FONTS if max(word) >= FIRST_CJK else FONTS:
        try:
            return ImageFont.truetype(name, FONT_SIZE)
        except OSError:
            continue
    return ImageFont.load_default(FONT_SIZE)
