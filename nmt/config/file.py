"""Reads configuration files and KEY=VALUE overrides into a checked Config, or reports every mistake in them."""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from nmt.config.reference import as_words, get_keys, suggest_key
from nmt.config.schema import ONE, SEVERAL, Config, TokenizerConfig
from nmt.config.schema.section import STORED
from nmt.config.yaml_lines import MAX_CHARACTERS, Place, read_yaml, write_yaml
from nmt.errors import UserError, suggest_name
from nmt.streams import open_bytes

# How messages name a place: "a.yaml:3: training.seed" or "command line: training.seed=x".
Labels = dict[Place, str]


MAX_BYTES = 4 * MAX_CHARACTERS
MAX_MISTAKES = 50
# Stored configurations hold every key that their version had. Versions without these keys behaved as with these values.
KEYS_SINCE = {"model": {"embedding_scale": 1.0}}
# Keys of stored configurations that have another name today: new names by old ones.
RENAMED_KEYS = {"decoding": {"pruning": "pruning_threshold"}, "training": {"accumulation": "accumulation_steps"}}


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Reads a configuration file and applies overrides such as "training.batch_size=64" or "data.train.0.source=x".

    Args:
        path: a YAML file, or the name of a recipe that comes with nmt, such as "demo". A file of that name wins.
        overrides: KEY=VALUE; values are read as YAML. Models of tokenizers replace the keys of the file by which
            tokenizers are trained.

    Returns:
        The configuration. If run_dir is null, it becomes runs/ and the file's name without its suffix.

    Raises:
        UserError: every mistake found, one per line, each with its file and line or its override.
    """
    path = _find_recipe(Path(path))
    values, labels = _read(_text(path), str(path))
    in_file = dict(labels)
    for override in overrides:
        _apply(override, values, labels)
    _drop_replaced(values, {place for place, label in labels.items() if in_file.get(place) != label})
    config = _checked(values, labels)
    return config if config.run_dir else config.model_copy(update={"run_dir": Path("runs", path.stem)})


def read_overrides(overrides: Sequence[str], *sections: str) -> dict[str, dict[str, Any]]:
    """Reads overrides of some sections of a configuration that already exists, such as a trained model's.

    Args:
        overrides: such as "decoding.beam_size=8".
        sections: names of the sections that may be overridden.

    Returns:
        The values by section and key. Each has the right type and range by itself; whether values go together is
        checked where they are applied.

    Raises:
        UserError: every mistake found, one per line, each with its override.
    """
    found: dict[str, dict[str, Any]] = {section: {} for section in sections}
    mistakes = []
    for override in overrides:
        try:
            section, key, value = _read_override(override, sections)
            found[section][key] = value
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UserError("\n".join(mistakes))
    return found


def load_stored_config(path: Path) -> Config:
    """Reads the configuration that a run or model folder stores, also one that an older version wrote.

    Raises:
        UserError: the file is missing, too large or not UTF-8, or see `config_from_text`.
    """
    return config_from_text(_text(path), str(path))


def config_from_text(text: str, name: str) -> Config:
    """Reads a stored configuration, also one that an older version wrote.

    Args:
        text: YAML.
        name: the name of its file, for messages.

    Raises:
        UserError: every mistake found, one per line, each with its line.
    """
    values, labels = _read(text, name)
    for section, keys_since in KEYS_SINCE.items():
        if isinstance(values.get(section), dict):
            values[section] = keys_since | values[section]
    for section, names in RENAMED_KEYS.items():
        if isinstance(values.get(section), dict):
            values[section] = rename_old_keys(section, values[section])
            labels |= {(section, new): labels[section, old] for old, new in names.items() if (section, old) in labels}
    return _checked(values, labels, STORED)


def rename_old_keys(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the stored values of a section under the current names of its keys."""
    names = RENAMED_KEYS.get(section, {})
    return {names.get(key, key): value for key, value in values.items()}


def dump_config(config: Config, *, given_only: bool = False) -> str:
    """Returns YAML of all keys, which `config_from_text` reads back to an equal configuration.

    Args:
        config: the configuration.
        given_only: whether to leave out the keys that were not given, as in a file for `load_config`.
    """
    return write_yaml(config.model_dump(mode="json", exclude_unset=given_only))


def replace_values(config: Config, values: Mapping[str, Any], name: str, *, is_stored: bool = False) -> Config:
    """Returns the configuration with some values replaced, given by their dotted keys. Other keys stay unset if unset.

    Args:
        config: the configuration.
        values: the new values.
        name: what precedes each mistake.
        is_stored: whether the configuration is that of a run or model, as from `load_stored_config`.

    Raises:
        UserError: every mistake found, one per line.
    """
    changed = config.model_dump(mode="json", exclude_unset=True)
    for key, value in values.items():
        *above, last = key.split(".")
        holder = changed
        for part in above:
            holder = holder.setdefault(part, {})
        holder[last] = value
    return _checked(changed, _OneLabel({(): name}), STORED if is_stored else None)


def check_value(key: str, value: Any, label: str) -> None:
    """Checks the type and range of one value, but not whether it goes together with others.

    Args:
        key: dotted; not inside a list.
        value: what YAML gave.
        label: begins the message.

    Raises:
        UserError: the type or the range is wrong.
    """
    *above, last = key.split(".")
    section: Any = Config
    for part in above:
        section = section.model_fields[part].annotation
    field = section.model_fields[last]
    kind: Any = Annotated[field.annotation, field]
    try:
        TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        rules = [str(one["ctx"]["error"]) for one in error.errors() if one["type"] == "value_error"]
        reason = rules[0] if rules else f"expected {get_keys()[key].kind}, found {_found(value)}"
        raise UserError(f"{label}: {reason}") from error


class _OneLabel(Labels):
    """Labels of values that do not come from a file: one label for all places."""

    def __missing__(self, place: Place) -> str:
        return self[()]


def find_differences(before: Config, after: Config) -> list[str]:
    """Returns one line per key that differs, such as "training.batch_size: 64 became 96"."""
    old, new = list_values(before), list_values(after)
    changed = [key for key in old | new if old.get(key, "nothing") != new.get(key, "nothing")]
    return [f"{key}: {old.get(key, 'nothing')} became {new.get(key, 'nothing')}" for key in changed]


def list_values(config: Config) -> dict[str, str]:
    """Returns all values of a configuration as words, by their dotted keys."""
    return dict(_leaves(config.model_dump(mode="json")))


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict | list):
        yield key, as_words(value)
        return
    for part, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves(inner, f"{key}.{part}" if key else str(part))


def _find_recipe(path: Path) -> Path:
    """Returns the path itself, or the path of the recipe that it names."""
    recipes = files("nmt") / "recipes"
    recipe = Path(str(recipes / f"{path}.yaml"))
    if (path / "config.yaml").is_file():
        raise UserError(f"{path} is a folder. Its configuration is {path / 'config.yaml'}.")
    if path.exists() or path.parent != Path() or path.suffix:
        return path
    if not recipe.is_file():
        names = sorted(Path(str(one)).stem for one in recipes.iterdir())
        raise UserError(
            f"There is no file {path} and no recipe of that name.{suggest_name(str(path), names)} "
            f"Recipes: {', '.join(names)}."
        )
    return recipe


def _read_override(override: str, sections: Sequence[str]) -> tuple[str, str, Any]:
    """Returns section, key and value of one override."""
    label = f"command line: {override}"
    key, equals, text = override.partition("=")
    example = (
        f"{sections[0]}.{next(name for name in get_keys() if name.startswith(f'{sections[0]}.')).partition('.')[2]}"
    )
    if not equals:
        raise UserError(_explain_no_value(override, f"{example}={get_keys()[example].default}"))
    section, _, name = key.partition(".")
    if section not in sections and section in get_keys():
        raise UserError(f"{label}: expected a key of {' or '.join(sections)}, such as {example}.")
    if key not in get_keys() or not name:
        raise UserError(f"{label}: unknown key.{suggest_key(key, sections)}")
    value, _ = read_yaml(text, label)
    check_value(key, value, label)
    return section, name, value


def _explain_no_value(override: str, example: str) -> str:
    is_file = os.path.isfile(override)  # noqa: PTH113  which takes any text, however long
    hint = " It is a file, and files are given by options: see --help." if is_file else ""
    return f"command line: {override}: expected KEY=VALUE, such as {example}.{hint}"


def _text(path: Path) -> str:
    with open_bytes(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: expected a configuration of at most {MAX_BYTES:,} bytes, found a larger file.")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: expected UTF-8, found the byte 0x{content[error.start]:02x}.") from error


def _read(text: str, name: str) -> tuple[dict[str, Any], Labels]:
    values, lines = read_yaml(text, name)
    if not isinstance(values, dict):
        raise UserError(f"{name}: expected sections such as 'training:' with keys in them, found {_found(values)}.")
    return values, {(): name} | {place: f"{name}:{line}: {_dotted(place)}" for place, line in lines.items()}


def _apply(override: str, values: dict[str, Any], labels: Labels) -> None:
    """Puts the value of one override into `values`, and its label into `labels`."""
    label = f"command line: {override}"
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(_explain_no_value(override, "training.batch_size=64"))
    holder: Any = values
    *above, last = key.split(".")
    place: Place = ()
    for part in above:
        place += (_entry(holder, part, label),)
        if isinstance(holder, dict) and holder.get(part) is None:
            holder[part] = {}
            labels[place] = label
        holder = holder[place[-1]]
    place += (_entry(holder, last, label),)
    holder[place[-1]], lines = read_yaml(text, label, place)
    labels.update({inner: f"{label}: {_dotted(inner)}" for inner in lines} | {place: label})


def _drop_replaced(values: dict[str, Any], overridden: Collection[Place]) -> None:
    """Drops the keys of the file by which tokenizers are trained if overrides name models of tokenizers instead."""
    section = values.get("tokenizer")
    models = ("source_model", "target_model")
    if isinstance(section, dict) and any(section.get(key) and ("tokenizer", key) in overridden for key in models):
        for key in TokenizerConfig.ACTS_WITH:
            if ("tokenizer", key) not in overridden:
                section.pop(key, None)


def _entry(holder: Any, part: str, label: str) -> str | int:
    """Returns the key or index of the entry `part` in `holder`: a key in a section, an index in a list."""
    if isinstance(holder, dict):
        return part
    if not isinstance(holder, list):
        raise UserError(f"{label}: '{part}' needs a section or a list around it, found {_found(holder)}.")
    if not part.isdecimal() or int(part) >= len(holder):
        raise UserError(f"{label}: expected an index below {len(holder)}, the length of the list, found '{part}'.")
    return int(part)


def _checked(values: dict[str, Any], labels: Labels, context: str | None = None) -> Config:
    try:
        # Strict mode rejects true as a number and "64" as an integer. Only JSON input may still give a path as text.
        return Config.model_validate_json(json.dumps(values), strict=True, context=context)
    except ValidationError as error:
        mistakes = error.errors()
        listed = [_problem(one, labels) for one in mistakes[:MAX_MISTAKES]]
        if len(mistakes) > MAX_MISTAKES:
            listed.append(f"… and {len(mistakes) - MAX_MISTAKES:,} more mistakes.")
        raise UserError("\n".join(listed)) from error


def _problem(error: ErrorDetails, labels: Labels) -> str:
    place, found = tuple(part for part in error["loc"] if part not in (ONE, SEVERAL)), error["input"]
    key = ".".join("N" if isinstance(part, int) else part for part in place)
    match error["type"]:
        case "missing":
            return f"{labels[place[:-1]]}: the key '{place[-1]}' is missing. {get_keys()[key].meaning}"
        case "extra_forbidden":
            return f"{labels[place]}: unknown key.{suggest_key(key)}"
        case "value_error":
            return _combination(place, str(error["ctx"]["error"]), labels)
        case "json_invalid":  # an unpaired surrogate, or sections nested a hundred deep
            return f"{labels[()]}: {error['msg']}"
    return f"{labels[place]}: expected {get_keys()[key].kind}, found {_found(found)}"


def _combination(place: Place, text: str, labels: Labels) -> str:
    """Labels each line of a mistake: with the key that the line begins with if that was given, or else the section."""
    lines = text.split("\n")
    keys = [(*place, *line.partition(" ")[0].rstrip(",").split(".")) for line in lines]
    return "\n".join(f"{labels.get(key, labels[place])}: {line}" for key, line in zip(keys, lines, strict=True))


def _found(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return repr(value) if isinstance(value, str) else as_words(value)


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))
