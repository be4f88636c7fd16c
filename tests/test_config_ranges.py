"""Every field of every group with every hostile value: taken, finite and within its range, or refused with one line."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparse_gpt import config as configs
from sparse_gpt import presets
from sparse_gpt.config import Config, fields
from sparse_gpt.errors import InputError
from sparse_gpt.training import schedules
from sparse_gpt.training.run import train_on_corpus
from tests import hostile

FIELDS = [(group, field) for group, rules in configs.RULES.items() for field in rules]


def one_line(error: pytest.ExceptionInfo[InputError], *names: str) -> None:
    """The message is short, can be printed anywhere, and names what is asked for."""
    text = str(error.value)
    assert text.isprintable()
    assert len(text) < 600
    for name in names:
        assert name in text


def is_sound(rule: fields.Rule, value: Any) -> bool:
    """Whether `value` is what the rule promises, judged without the rule's own code."""
    match rule:
        case fields.Whole():
            return type(value) is int and rule.at_least <= value <= rule.at_most < 2**63
        case fields.Real():
            low = rule.at_least if rule.above is None else math.nextafter(rule.above, math.inf)
            high = rule.at_most if rule.below is None else math.nextafter(rule.below, -math.inf)
            assert low is not None
            assert high is not None
            normal = value == 0 or abs(value) >= sys.float_info.min * 2.0**896  # of float32: 2 ** -126
            return type(value) is float and math.isfinite(value) and low <= value <= high and normal
        case fields.Flag():
            return type(value) is bool
        case fields.Names():
            return type(value) is tuple and all(part in rule.allowed for part in value)
        case fields.Choice():
            return type(value) is str and value in rule.allowed
        case fields.Numbers():
            floats = type(value) is tuple and all(type(number) is float for number in value)
            return floats and bool(value) and all(rule.at_least <= number <= rule.at_most for number in value)
        case fields.Texts():
            return type(value) is tuple and all(type(part) is str and part.isprintable() for part in value)
        case fields.Text():
            return len(value.encode()) <= 4 * fields.LONGEST and not re.search("[\x00-\x1f]", value)
    raise AssertionError(rule)


def checked(group: str, field: str, value: Any, prefix: str, make: Any) -> bool:
    """Whether `make` takes the value for a field; what it makes of it is sound, and a refusal is one line."""
    try:
        made = make({group: {field: value}})
    except InputError as error:
        text = str(error)
        assert text.isprintable(), text
        assert len(text) < 600, text
        assert text.startswith(prefix), text
        assert "model.d_position" in text or "model.norm_bias" in text or f"{group}.{field}=" in text, text
        return False
    held = getattr(getattr(made, group), field)
    assert is_sound(configs.RULES[group][field], held), (group, field, held)
    return True


@pytest.mark.parametrize("case", hostile.VALUES, ids=lambda case: case.name)
def test_every_field_takes_or_refuses_a_hostile_value(case: hostile.Case) -> None:
    def as_flag(tree: dict[str, dict[str, Any]]) -> Config:
        flat = {f"{group}.{field}": value for group, held in tree.items() for field, value in held.items()}
        return configs.replace(Config(), flat)

    def as_file(tree: dict[str, dict[str, Any]]) -> Config:
        return configs.from_dict(tree, "W/config.json")

    for group, field in FIELDS:
        checked(group, field, case.value, "--config.", as_flag)
        checked(group, field, case.value, "W/config.json: ", as_file)


@pytest.mark.parametrize("case", hostile.VALUES, ids=lambda case: case.name)
def test_validate_judges_configurations_made_in_code_alike(case: hostile.Case) -> None:
    said = []
    for group, field in FIELDS:
        rule = configs.RULES[group][field]
        changed = dataclasses.replace(getattr(Config(), group), **{field: case.value})
        try:
            made = configs.validate(dataclasses.replace(Config(), **{group: changed}))
        except InputError as error:
            said.append(str(error))
            continue
        assert is_sound(rule, getattr(getattr(made, group), field)), (group, field, case.name)
    assert all(text.isprintable() for text in said)


@pytest.mark.parametrize("tree", hostile.TREES, ids=lambda case: case.name)
def test_a_file_that_holds_no_configuration_is_refused_in_one_line(tree: hostile.Case) -> None:
    with pytest.raises(InputError) as error:
        configs.from_dict(tree.value, "W/config.json")
    one_line(error, "W/config.json: ")


def test_nothing_hostile_is_taken_by_a_number_except_zero_and_minus_one() -> None:
    """The table does its work: most of it is refused by most fields."""
    numeric = [(g, f) for g, f in FIELDS if isinstance(configs.RULES[g][f], fields.Whole | fields.Real)]
    taken = set()
    for case in hostile.VALUES:
        for group, field in numeric:
            rule = configs.RULES[group][field]
            try:
                taken.add((case.name, type(rule).__name__, rule.read(case.value)))
            except ValueError:
                continue
    assert {name for name, kind, _ in taken if kind == "Whole"} <= {"zero", "minus zero"}
    assert {name for name, kind, _ in taken if kind == "Real"} <= {"zero", "minus zero", "minus one", "a fraction"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sparsity.density", 1e-320, "too near to 0"),
        ("model.d_position", -1, "must be at least 0"),
        ("prune.weight_decay", math.nan, "must be a finite number"),
        ("prune.init_noise_scale", math.inf, "must be a finite number"),
        ("prune.init_noise_bias", -math.inf, "must be a finite number"),
        ("prune.heaviside_temp", math.nan, "must be a finite number"),
        ("prune.random_draws", 10**18, "at most"),
        ("prune.beta2", 1 - 1e-12, r"must be in \[0, 1\)"),
        ("train.eval_batches", 10**20, "at most"),
        ("train.seed", 2**32, "at most 4294967295"),
        ("prune.k_coefs", "1e-4;3e-4", "list of numbers"),
        ("sparsity.activation_sites", "attn_in,<b>", "'<b>' is unknown; choose from attn_in"),
        ("model.norm", "<b>", "choose one of rms, layer"),
    ],
)
def test_what_used_to_pass_is_named(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        configs.replace(Config(), {name: value})


def test_a_stored_value_outside_its_choices_names_file_field_and_choices(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": {"norm": "<b>"}}))
    with pytest.raises(InputError, match=r"config\.json: model\.norm=<b>: choose one of rms, layer") as error:
        configs.load(tmp_path)
    one_line(error)


@pytest.mark.parametrize("content", ["", "[", "[" * 100_000, '{"model": {"n_layer": Infinity}}', "\xff"])
def test_an_unreadable_config_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"config\.json"):
        configs.load(tmp_path)


def test_files_of_older_runs_keep_loading() -> None:
    assert configs.from_dict({}) == Config()
    older = {"model": {"d_model": 64, "n_layer": 2.0}, "prune": {"weight_decay": 0, "k_coefs": " 1e-4, 3e-4,"}}
    config = configs.from_dict(older)
    assert (config.model.d_model, config.model.n_layer, config.prune.weight_decay) == (64, 2, 0.0)
    assert config.prune.k_coefs == (1e-4, 3e-4)


@pytest.mark.parametrize(
    ("name", "old", "held"),
    [
        ("prune.k_coefs", "1e-4, 3e-4,", (1e-4, 3e-4)),
        ("sparsity.activation_sites", "attn_in,mlp_out", ("attn_in", "mlp_out")),
        ("sparsity.activation_sites", "", ()),
        ("bridge.boundaries", "0:0,4:2", ("0:0", "4:2")),
    ],
)
def test_lists_are_read_from_lists_and_from_the_old_text(name: str, old: str, held: tuple[Any, ...]) -> None:
    """A flag and a file of an older run hold one text with commas; files hold lists now."""
    group, field = name.split(".")
    for given in (old, list(held), held, configs.as_flag(held)):
        config = configs.replace(Config(), {name: given})
        assert getattr(getattr(config, group), field) == held
    written = json.loads(json.dumps(configs.to_dict(config)))
    assert written == configs.to_dict(config)  # so that what was written can be compared with what is held
    assert written[group][field] == list(held)


@pytest.mark.parametrize("value", [[1e-4, "x"], [], [True], {"a": 1}, 1e-4, [[1e-4]]])
def test_what_is_no_list_of_numbers_is_named(value: Any) -> None:
    with pytest.raises(InputError, match="expected a list of numbers"):
        configs.replace(Config(), {"prune.k_coefs": value})


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_are_valid_and_survive_a_file(name: str) -> None:
    config = configs.validate(presets.preset(name))
    assert configs.from_dict(json.loads(json.dumps(configs.to_dict(config)))) == config


@pytest.mark.parametrize("density", [0.1, 0.3, 0.07, 1 / 3, 0.55, 0.6123])
@pytest.mark.parametrize("sizes", [(10, 40), (49, 98), (16, 32), (7, 50)], ids=str)
def test_min_alive_is_judged_by_what_the_schedule_keeps(sizes: tuple[int, int], density: float) -> None:
    """Only what the last step keeps counts, and the message's ways out are ways out."""
    d_model, d_mlp = sizes
    shape = {"model.d_model": d_model, "model.d_mlp": d_mlp, "model.n_head": 1, "model.d_head": d_model}
    outcomes = set()
    for min_alive in range(0, d_model + 1, math.ceil(d_model / 10)):
        wanted = {**shape, "sparsity.density": density, "sparsity.min_alive": min_alive}
        config = configs.replace(presets.tiny(), wanted)
        m, specs = config.model, schedules.projected_tensors(config)
        kept = dict(zip(specs, schedules.keep_counts(config, config.train.steps), strict=True))
        reached = all(
            min(min_alive, size // neurons) * neurons <= kept["h_0", *path, "kernel"]
            for *path, size, neurons in (
                ("attn", "c_attn", m.d_model * 3 * m.d_model, 3 * m.d_model),
                ("attn", "c_proj", m.d_model * m.d_model, m.d_model),
                ("mlp", "c_fc", m.d_model * m.d_mlp, m.d_mlp),
                ("mlp", "c_proj", m.d_mlp * m.d_model, m.d_mlp),
            )
        )
        outcomes.add(reached)
        if reached:
            configs.validate(config)
            continue
        with pytest.raises(InputError, match="lower min_alive to") as error:
            configs.validate(config)
        found = re.search(r"lower min_alive to (\d+) or raise density to (\S+)$", str(error.value))
        assert found
        configs.validate(configs.replace(config, {"sparsity.min_alive": int(found[1])}))
        configs.validate(configs.replace(config, {"sparsity.density": float(found[2])}))
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("site", "shape", "width"),
    [
        ("attn_out", {"model.d_model": 49}, 49),
        ("attn_in", {"model.d_model": 40, "model.position": "concat", "model.d_position": 9}, 49),
        ("resid_post_mlp", {"model.d_model": 24}, 24),
        ("attn_k", {"model.n_head": 3, "model.d_head": 5}, 15),
        ("mlp_neuron", {"model.d_mlp": 98}, 98),
    ],
)
def test_what_is_trained_keeps_a_channel_and_the_smallest_fraction_that_does_is_named(
    site: str, shape: dict[str, Any], width: int, tmp_path: Path
) -> None:
    few = {"sparsity.activation_sites": site, "sparsity.min_alive": 0}
    config = configs.replace(presets.tiny(), {**shape, **few, "sparsity.activation_fraction": 0.9 / width})
    configs.validate(config)  # an imported model may be like this
    for train in (configs.check_trainable, lambda c: train_on_corpus(c, tmp_path / "run")):
        with pytest.raises(InputError, match=f"keeps no channel of {site}, which has {width};") as error:
            train(config)
        one_line(error, "--config.sparsity.activation_fraction=")
    assert not (tmp_path / "run").exists()
    smallest = float(str(error.value).rpartition(" ")[2])
    configs.check_trainable(configs.replace(config, {"sparsity.activation_fraction": smallest}))
    with pytest.raises(InputError, match="keeps no channel"):
        configs.check_trainable(configs.replace(config, {"sparsity.activation_fraction": math.nextafter(smallest, 0)}))
    configs.check_trainable(configs.replace(config, {"sparsity.activation_fraction": 0.0}))
    configs.check_trainable(configs.replace(config, {"sparsity.activation_sites": ""}))


def test_every_field_says_what_it_is_for_and_what_it_takes() -> None:
    text = configs.help_text()
    for group, field in FIELDS:
        rule = configs.RULES[group][field]
        assert rule.help, f"{group}.{field}"
        assert f"\n{group}.{field}=" in text
        assert rule.range in text


def test_reading_a_configuration_does_not_import_jax() -> None:
    code = "import sys; from sparse_gpt import config, presets; config.help_text(); sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
