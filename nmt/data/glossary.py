"""Glossaries: files of terms with the translation that each must have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nmt.data.corpus import read_lines
from nmt.errors import UserError
from nmt.files import compute_digest

SHOWN_MISTAKES = 10  # per file


@dataclass(frozen=True)
class Glossary:
    """Terms and their translations. They are found as whole words, as they are written."""

    entries: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Glossary":
        """Reads a file with a term, a tab and its translation per line; blank lines are skipped.

        Raises:
            UserError: the file is missing or not UTF-8; a line has another form, or a term has two translations. All
                such lines are in the message.
        """
        return cls._read(((f"{path}:{number}", line) for number, line in enumerate(read_lines(path), start=1)), path)

    @classmethod
    def from_pairs(cls, pairs: Mapping[str, str], name: str = "glossary") -> "Glossary":
        """Makes a glossary of terms and their translations, given by a program.

        Raises:
            UserError: a term or its translation is blank, or has a tab or a line break.
        """
        return cls._read(((name, f"{source}\t{target}") for source, target in pairs.items()), name)

    @classmethod
    def _read(cls, lines: Iterable[tuple[str, str]], name: Path | str) -> "Glossary":
        entries: dict[str, str] = {}
        places: dict[str, str] = {}
        mistakes = []
        for place, line in lines:
            if not line.strip():
                continue
            source, *targets = (side.strip() for side in line.split("\t"))
            if len(targets) != 1 or not source or not targets[0] or len(line.splitlines()) > 1:
                mistakes.append(f"{place}: expected a term, a tab and its translation, found {line[:80]!r}")
            elif entries.setdefault(source, targets[0]) != targets[0]:
                mistakes.append(
                    f"{place}: {source!r} is to become {targets[0]!r}, but {entries[source]!r} in {places[source]}"
                )
            places.setdefault(source, place)
        if mistakes:
            more = len(mistakes) - SHOWN_MISTAKES
            raise UserError("\n".join([*mistakes[:SHOWN_MISTAKES], *([f"… and {more:,} more"] if more > 0 else [])]))
        if not entries:
            raise UserError(f"{name}: expected a term, a tab and its translation per line, found no terms.")
        return cls(entries)

    @property
    def fingerprint(self) -> str:
        """Digest of the terms and their translations, in order."""
        return compute_digest("\n".join(f"{source}\t{target}" for source, target in self.entries.items()).encode())


def read_glossary(given: "Glossary | Mapping[str, str] | Path | str | None") -> Glossary:
    """Returns a glossary, given itself, its terms with their translations, or its file; None is an empty one.

    Raises:
        UserError: see `Glossary.read`.
    """
    if given is None:
        return Glossary()
    if isinstance(given, Glossary):
        return given
    return Glossary.from_pairs(given) if isinstance(given, Mapping) else Glossary.read(Path(given))
