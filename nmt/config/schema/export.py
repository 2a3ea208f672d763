"""The section `export`."""

import re

from pydantic import PositiveInt, model_validator

from nmt.config.schema.section import Section


class ExportConfig(Section):
    """The SavedModel for TensorFlow Serving."""

    max_characters: PositiveInt = 2000
    """Maximum number of characters of a text; longer ones are truncated, and their answers are marked."""
    max_batch: PositiveInt = 256
    """Texts translated at once; larger requests are processed in parts."""
    nbest: PositiveInt = 5
    """Hypotheses per text that the signature `nbest` returns; at most decoding.beam_size."""
    interactive: bool = False
    """Whether to add the signatures `complete` (translations that begin with a prefix and contain phrases) and
    `alternatives` (suggestions for the next word). They make the graph about twice as large."""
    sample: PositiveInt = 200
    """Number of dev sentences on which the export is compared with the model."""
    server_version: str | None = None
    """Version of the TensorFlow Serving that will run the export, such as 2.21.0 (the tag of its image). It must not be
    older than the exporting TensorFlow; null is that TensorFlow's minor version."""

    @model_validator(mode="after")
    def _server_version_is_valid(self) -> "ExportConfig":
        if self.server_version is not None and not re.fullmatch(r"\d+\.\d+\.\d+", self.server_version):
            raise ValueError(f"server_version must be three numbers, such as 2.21.0; found '{self.server_version}'")
        return self
