"""What a run needs is known before it starts, whatever the numbers; what works is not refused."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from sparse_gpt import config as configs
from sparse_gpt import estimate, machine, presets
from sparse_gpt.circuits import Problem
from sparse_gpt.circuits.problem import LoadedModel
from sparse_gpt.config import Config, ModelConfig
from sparse_gpt.errors import InputError
from sparse_gpt.model.taps import site_widths
from sparse_gpt.parameters import parameter_table
from sparse_gpt.training import run
from tests import circuits_model

GB = 10**9
FOR_ONE_MACHINE = [name for name in presets.PRESETS if not name.startswith("paper")]
MODELS = [
    *(presets.preset(name).model for name in presets.PRESETS),
    ModelConfig(position="additive", tied=True, bias=False, final_bias=False, bigram=False, attention_sink=False),
    ModelConfig(position="concat", d_position=6, norm="layer", norm_bias=True, n_layer=3),
    ModelConfig(position="sinusoidal", d_position=8, n_head=3, d_head=5),
]


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight gigabytes and two cores."""
    monkeypatch.setattr(machine, "memory", lambda: 8 * GB)
    monkeypatch.setattr(machine, "cores", lambda: 2)


@pytest.mark.parametrize("model", MODELS, ids=range(len(MODELS)))
def test_parameters_and_nodes_are_counted_as_the_model_has_them(model: ModelConfig) -> None:
    assert estimate.parameters(model) == sum(spec.size for spec in parameter_table(model).values())
    assert estimate.nodes(model) == model.n_layer * sum(site_widths(model).values())


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize("what", estimate.KINDS)
@pytest.mark.parametrize("name", FOR_ONE_MACHINE)
def test_what_is_meant_for_one_machine_is_not_refused(name: str, what: str) -> None:
    estimate.check(presets.preset(name), what)


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize("what", estimate.KINDS)
@pytest.mark.parametrize("name", presets.PRESETS)
def test_accelerators_are_not_refused_the_papers_sizes(name: str, what: str) -> None:
    estimate.check(presets.preset(name), what, devices=256, hosts=64, accelerator=True)


ABSURD = [
    ("train", "model.d_model", 10**9),
    ("train", "model.d_model", 1_000_000),
    ("train", "model.n_layer", 10**9),
    ("train", "model.d_mlp", 10**300),
    ("train", "model.vocab_size", 10**6),
    ("train", "model.context", 10**7),
    ("train", "train.batch_size", 10**12),
    ("train", "train.eval_batches", 10**20),
    ("train", "train.steps", 10**18),
    ("train", "train.steps", 10**400),
    ("prune", "prune.seeds", 10**6),
    ("prune", "prune.batch_pairs", 10**9),
    ("prune", "prune.steps", 10**18),
    ("prune", "prune.random_draws", 10**18),
    ("prune", "prune.evaluation_pairs", 10**12),
    ("bridge", "bridge.dense_d_model", 2**20),
    ("bridge", "bridge.dense_steps", 10**18),
    ("bridge", "model.n_layer", 10**9),
]


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize(("what", "name", "value"), ABSURD, ids=lambda value: str(value)[:30])
def test_the_absurd_is_refused_with_a_value_that_fits(what: str, name: str, value: int) -> None:
    def changed(number: int) -> Config:
        group, field = name.split(".")
        config = presets.tiny()
        return dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **{field: number})})

    with pytest.raises(InputError) as error:
        estimate.check(changed(value), what)
    text = str(error.value)
    assert text.startswith(f"--config.{name}=")
    assert len(text) < 400
    found = re.search(r"; (\d+) would fit$", text)
    assert found, text
    estimate.check(changed(int(found[1])), what)
    with pytest.raises(InputError):
        estimate.check(changed(64 * int(found[1])), what)


@pytest.mark.usefixtures("small_machine")
@pytest.mark.parametrize("parts", [1, 3, 7])
def test_the_batch_that_would_fit_has_equal_microbatches(parts: int) -> None:
    train = dataclasses.replace(presets.tiny().train, batch_size=parts * 10**12, microbatches=parts)
    config = dataclasses.replace(presets.tiny(), train=train)
    with pytest.raises(InputError, match="would fit") as error:
        estimate.check(config)
    best = int(str(error.value).split()[-3])
    fitting = configs.replace(config, {"train.batch_size": best})
    estimate.check(configs.validate(fitting))


@pytest.mark.usefixtures("small_machine")
def test_several_fields_that_are_too_large_together_are_named() -> None:
    sizes = {"d_model": 2**20, "d_mlp": 2**22, "vocab_size": 2**24}
    config = dataclasses.replace(presets.tiny(), model=dataclasses.replace(presets.tiny().model, **sizes))
    with pytest.raises(InputError, match=r"vocab_size=16777216: training would need .* lower it, and model\.d_m"):
        estimate.check(config)


def test_more_hosts_have_more_memory(small_machine: None) -> None:
    config = presets.preset("paper_118m")
    with pytest.raises(InputError, match="this machine has 8 GB"):
        estimate.check(config)
    with pytest.raises(InputError, match="2 such machines have 16 GB"):
        estimate.check(config, hosts=2)
    estimate.check(config, hosts=256)


def test_a_training_that_is_too_large_writes_nothing(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 100_000)
    with pytest.raises(InputError, match="this machine has 100000 bytes"):
        run.train_on_corpus(presets.tiny(), workdir)
    assert not workdir.exists()


def test_a_corpus_that_is_larger_than_the_disk_writes_nothing(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 200_000

    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(InputError, match=r"data\.tokens=120000: takes 240000 bytes, .* 32768 would fit"):
        run.train_on_corpus(presets.tiny(), workdir)
    assert not workdir.exists()
    estimate.check_corpus(configs.replace(presets.tiny(), {"data.sources": "text=somewhere"}), workdir)
    (workdir / "corpus").mkdir(parents=True)
    estimate.check_corpus(presets.tiny(), workdir)


def test_a_search_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = circuits_model.config()
    monkeypatch.setattr(machine, "memory", lambda: 10_000)
    nothing: Any = None
    with pytest.raises(InputError, match="the search would need"):
        Problem.build(LoadedModel(config, nothing), nothing)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4_096_000),
        ({"sys/fs/cgroup/memory.max": "max\n"}, 4_096_000),
        ({"sys/fs/cgroup/memory.max": "1000\n"}, 1000),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 4_096_000),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "2000\n"}, 2000),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "3000\n"}, 3000),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "500\n"}, 500),
        ({"proc/self/cgroup": "4:cpu,memory:/j\n1:cpu:/k\n", "sys/fs/cgroup/memory/j/memory.limit_in_bytes": "7"}, 7),
        ({"proc/self/cgroup": "nonsense\n\n", "sys/fs/cgroup/memory.max": "nonsense"}, 4_096_000),
    ],
)
def test_the_limit_of_the_container_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    for name, content in {"proc/meminfo": "MemFree: 1 kB\nMemTotal:       4000 kB\n", **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert machine.memory(tmp_path) == expected


def test_a_machine_that_says_nothing_still_answers(tmp_path: Path) -> None:
    assert machine.memory(tmp_path) > 0
    assert machine.cores() > 0
    assert 10**6 < machine.memory() <= machine.UNLIMITED


@pytest.mark.parametrize(
    ("count", "text"),
    [(12, "12 bytes"), (1_900_000, "1.9 MB"), (23 * GB, "23 GB"), (10**19, "10 EB"), (10**400, "over a million EB")],
)
def test_amounts_are_for_people(count: int, text: str) -> None:
    assert estimate.amount(count) == text
