"""Typed, frozen configuration; named ones are in presets.py.

Every field is a plain int, float, bool or str, or a tuple of them, so that a configuration is a flat table that a flag
can override (``--config.model.d_model=256``), a JSON file can hold, and two runs can be compared by equality. A value
from either goes through the same rule, declared beside the field (see fields.py and groups.py).
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_gpt.config import fields
from sparse_gpt.config.checks import (
    activation_sites,
    check_fraction,
    check_model,
    check_rules,
    check_trainable,
    embedding_density,
    kinds,
    path_kinds,
)
from sparse_gpt.config.fields import as_flag
from sparse_gpt.config.groups import (
    NODE_SITES,
    READS,
    RESIDUAL_SITES,
    TUNE_BATCH,
    WRITES,
    BridgeConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PruneConfig,
    SparsityConfig,
    TrainConfig,
)
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree, read_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "FLAG",
    "NODE_SITES",
    "READS",
    "RESIDUAL_SITES",
    "RULES",
    "TUNE_BATCH",
    "WRITES",
    "BridgeConfig",
    "Config",
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PruneConfig",
    "SparsityConfig",
    "TrainConfig",
    "activation_sites",
    "as_flag",
    "check_fraction",
    "check_trainable",
    "embedding_density",
    "from_dict",
    "group_to_dict",
    "help_text",
    "kinds",
    "load",
    "path_kinds",
    "replace",
    "to_dict",
    "validate",
    "without_folders",
]

FLAG = "--config."  # what messages put before the name of a field that was given as a flag
RULES: Mapping[str, Mapping[str, fields.Rule]] = {
    group.name: fields.rules(getattr(Config(), group.name)) for group in dataclasses.fields(Config)
}
"""Group -> field -> rule."""


def replace(config: Config, overrides: Mapping[str, object], prefix: str = FLAG) -> Config:
    """Config with dotted fields replaced: ``{"model.d_model": 256}``; messages name a field as `prefix` + name.

    Raises:
      InputError: unknown fields, and values outside of a field's own range. Rules between fields are left to
        `validate`, since a later override may mend them.
    """
    for name, value in overrides.items():
        group, _, field = name.partition(".")
        known = RULES.get(group, {})
        if field not in known:
            raise InputError(
                f"{prefix}{fields.shown(name, name.isprintable())}: no such field; "
                + (f"{group} has {', '.join(sorted(known))}" if known else f"the groups are {', '.join(RULES)}")
            )
        value = fields.read(known[field], f"{prefix}{name}", value)
        config = dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **{field: value})})
    return config


def without_folders(config: Config) -> Config:
    """The configuration of a model that leaves its machine: its corpus and tokenizer are those in its own folder, not
    those that `data.corpus` and `data.tokenizer` name there."""
    return replace(config, {"data.corpus": "", "data.tokenizer": ""})


def to_dict(config: Config) -> Tree:
    """Nested plain dict, as written to config.json."""
    return {group: group_to_dict(getattr(config, group)) for group in RULES}


def group_to_dict(group: "DataclassInstance") -> Tree:
    """One group as a plain dict, equal to what reading it from JSON gives: lists where the group has tuples."""
    held = dataclasses.asdict(group)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in held.items()}


def from_dict(tree: object, where: str = "") -> Config:
    """Inverse of `to_dict`; groups and fields that are absent keep their defaults.

    Args:
      tree: what a JSON file held, of any type.
      where: the file, for messages.

    Raises:
      InputError: not an object of groups of fields, unknown fields, values that their flags would refuse, or a model
        that cannot be. How it was trained is not judged: an imported model may keep fewer nonzeros than ours must.
    """
    prefix = f"{where}: " if where else ""
    if not isinstance(tree, Mapping):
        raise InputError(f"{prefix}a configuration is an object of groups, not {fields.shown(tree)}")
    flat: Tree = {}
    for group, held in tree.items():
        if not isinstance(held, Mapping):
            raise InputError(
                f"{prefix}{fields.shown(group, str(group).isprintable())}={fields.shown(held)}: expected an object of "
                f"fields; the groups are {', '.join(RULES)}"
            )
        flat |= {f"{group}.{field}": value for field, value in held.items()}
    config = replace(Config(), flat, prefix)
    check_model(config.model, prefix)
    return config


def load(workdir: str | Path) -> Config:
    """The configuration of a workdir. Raises InputError if it has none, or one that cannot be read or cannot be."""
    path = Path(workdir) / "config.json"
    if not os.path.lexists(path):
        raise InputError(f"{path}: not found; is {workdir} the workdir of a training run or an import?")
    return from_dict(read_json(path), str(path))


def validate(config: Config) -> Config:
    """Returns `config`, each value in its field's type, or raises InputError on the first value or combination that is
    impossible."""
    flat = {f"{group}.{field}": getattr(getattr(config, group), field) for group in RULES for field in RULES[group]}
    config = replace(Config(), flat)
    check_rules(config, FLAG)
    return config


def help_text() -> str:
    """Every field with its default, range and meaning, one a line, for ``--help``."""
    lines = ["Override any field of the preset, such as --config.model.d_model=256. Fields, and their plain defaults:"]
    for group, rules in RULES.items():
        held = getattr(Config(), group)
        for field, rule in rules.items():
            value = fields.as_flag(getattr(held, field))
            shown = (
                str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else value
            )
            lines.append(f"{group}.{field}={shown}: {rule.help} ({rule.range})")
    return "\n".join(lines)
