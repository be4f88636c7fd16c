"""Models stored in one small file: every bit comes back, and what is wrong with a file is said in one line."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import sparse_gpt as sg
from sparse_gpt import config as configs
from sparse_gpt import presets, stored, tasks
from sparse_gpt.circuits import full_task_loss, task_batch
from sparse_gpt.data import Corpus, Tokenizer, prepare_corpus, train_tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.experiments import sparse_vs_dense
from sparse_gpt.interop.workdirs import export_openai
from sparse_gpt.io import write_json
from sparse_gpt.model import Params
from sparse_gpt.parameters import abstract_params, flatten
from sparse_gpt.stored.initial import check_tokenizer
from sparse_gpt.stored.rounding import copy_with_short_bigrams
from sparse_gpt.training import manifest
from sparse_gpt.training.checkpoint import load_params, save_params
from sparse_gpt.workdir import Workdir
from tests.inprocess import launch_here

SPARSE = [("wte",), ("lm_head",)] + [
    (f"h_{layer}", part, name, "kernel")
    for layer in range(3)
    for part, name in (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj"))
]


def sparse_params(config: configs.Config) -> Params:
    """Random parameters, about one in eight nonzero, with values that are easily lost."""
    random = np.random.default_rng(0)

    def leaf(like: jax.ShapeDtypeStruct) -> np.ndarray:
        kept = random.random(like.shape) < 1 / 8
        value = np.where(kept, random.normal(size=like.shape), 0).astype(np.float32)
        value.flat[:3] = (-0.0, np.float32(1e-42), np.float32(3.4e38))[: value.size]
        return value

    return jax.tree.map(leaf, abstract_params(config.model))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    """A workdir as training leaves it, without having trained, and its parameters."""
    folder, config = tmp_path_factory.mktemp("stored") / "original", presets.tiny()
    params = sparse_params(config)
    save_params(folder, params, 40)
    facts = {"params_sha256": manifest.params_sha256(params), "step": 40}
    elsewhere = configs.replace(config, {"data.corpus": "/some/corpus"})
    write_json(folder / "config.json", configs.to_dict(elsewhere))
    write_json(folder / "manifest.json", facts)
    train_tokenizer(["def f(x):\n    return x\n"] * 9, 260).save(folder / "tokenizer")
    corpus = folder.with_name("small corpus")
    (corpus / "shards").mkdir(parents=True)
    (corpus / "manifest.json").write_text("{}")
    (corpus / "shards" / "00-train-00000.bin").write_bytes(bytes(range(256)))
    (corpus / ".lock").touch()
    return folder, params


@pytest.fixture(scope="module")
def file(original: tuple[Path, Params]) -> Path:
    path = original[0].with_name("model.zip")
    stored.store(original[0], path, original[0].with_name("small corpus"))
    return path


def equal_bits(one: Params, other: Params) -> bool:
    ours, theirs = flatten(one), flatten(other)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(leaf.view(np.uint32), theirs[path].view(np.uint32)) for path, leaf in ours.items()
    )


def test_a_workdir_comes_back_bit_for_bit(original: tuple[Path, Params], file: Path, workdir: Path) -> None:
    folder, params = original
    stored.unpack(str(file), workdir)
    found, step = load_params(workdir, configs.load(workdir).model)
    assert step == 40
    assert equal_bits(found, params)
    assert configs.load(workdir) == presets.tiny()  # the corpus is its own now
    for name in ("manifest.json", "tokenizer/vocab.bpe"):
        assert (workdir / name).read_bytes() == (folder / name).read_bytes()
    assert (workdir / "corpus" / "shards" / "00-train-00000.bin").read_bytes() == bytes(range(256))
    assert not (workdir / "corpus" / ".lock").exists()
    assert equal_bits(stored.load(str(file))[1], params)


def test_zeros_take_a_bit_each_and_equal_models_are_equal_files(original: tuple[Path, Params], file: Path) -> None:
    kept = sum(np.count_nonzero(leaf) for leaf in flatten(original[1]).values())
    total = sum(leaf.size for leaf in flatten(original[1]).values())
    assert kept < total / 7
    with zipfile.ZipFile(file) as archive:
        assert len(archive.read("params.npz")) < 4 * kept + total / 8 + 30_000
    again = file.with_name("again.zip")
    stored.store(original[0], again, original[0].with_name("small corpus"))
    assert again.read_bytes() == file.read_bytes()


def test_a_workdir_that_holds_the_model_is_kept_and_another_one_refused(file: Path, workdir: Path) -> None:
    stored.unpack(str(file), workdir)
    (workdir / "circuits").mkdir()
    stored.unpack(str(file), workdir)
    assert (workdir / "circuits").is_dir()
    manifest.update(workdir, {"params_sha256": "of another model"})
    with pytest.raises(InputError, match="not empty"):
        stored.unpack(str(file), workdir)


def test_a_bigram_table_is_stored_to_a_32nd(tmp_path: Path, original: tuple[Path, Params]) -> None:
    """A model of its own: its fingerprint and its evaluation, with the fingerprint of the trained one beside."""
    folder, config = tmp_path / "trained", configs.replace(presets.tiny(), {"model.bigram": True})
    params = sparse_params(config)
    save_params(folder, params, 40)
    write_json(folder / "config.json", configs.to_dict(config))
    counts = manifest.nonzeros(params)
    facts = {"params_sha256": manifest.params_sha256(params), "step": 40, "nonzeros": counts}
    write_json(folder / "manifest.json", facts)
    write_json(folder / "evaluation.json", {"params_sha256": manifest.params_sha256(params), "tasks": []})
    shutil.copytree(original[0] / "tokenizer", folder / "tokenizer")
    short = tmp_path / "short"
    rounded = copy_with_short_bigrams(folder, config, short)
    found, step = load_params(short, config.model)
    assert step == 40
    table = params["bigram"]
    multiples = np.array([round(float(value) * 32) / 32 + 0.0 for value in table.ravel()], np.float32)  # ties to even
    bits = multiples.view(np.uint32).astype(np.uint64)
    nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32)  # bfloat16, ties to even too
    assert np.array_equal(np.asarray(found["bigram"]).view(np.uint32).ravel(), nearest)
    inside = np.abs(table) < 8
    assert 0 < np.abs(np.asarray(found["bigram"]) - table)[inside].max() <= 1 / 64
    assert equal_bits({**found, "bigram": params["bigram"]}, params)
    reported = json.loads((short / "manifest.json").read_text())
    assert reported["params_sha256"] == manifest.params_sha256(found)
    assert reported["trained_params_sha256"] == manifest.params_sha256(params)
    assert reported["nonzeros"] == manifest.nonzeros(found) != counts
    assert equal_bits(rounded, found)
    assert not (short / "evaluation.json").exists(), "it would be that of the trained parameters"


def test_the_stored_corpus_is_of_the_texts_that_the_model_was_trained_on(
    original: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the preset's sources, where the run named a prepared corpus; the model has more entries than tokenizer."""
    folder, (text, corpus) = tmp_path / "trained", (tmp_path / name for name in ("text.txt", "corpus"))
    shutil.copytree(original[0], folder)
    text.write_text("".join(f"def f(x):\n    return x + {number}\n\n\n" for number in range(900)))
    given = {"data.sources": f"text={text}:1", "data.tokens": 0, "data.near_duplicates": False}
    tokenizer, entries = folder / "tokenizer", Tokenizer.load(folder / "tokenizer").vocab_size
    made = configs.replace(presets.tiny(), {**given, "data.max_file_bytes": 150_000, "data.tokenizer": str(tokenizer)})
    held = prepare_corpus(corpus, made.data, entries, progress=False)
    write_json(folder / "config.json", configs.to_dict(configs.replace(presets.tiny(), {"data.corpus": str(corpus)})))
    manifest.update(folder, {"corpus_sha256": held.sha256})
    monkeypatch.setattr("launch.jobs.store.tasks_solved.write", lambda *_: "evaluated")
    asked = ("store", f"--workdir={folder}", "--tokens=500")
    done = launch_here(*asked, f"--output={tmp_path / 'one.zip'}")
    assert done.returncode == 0, done.stderr
    stored.unpack(str(tmp_path / "one.zip"), tmp_path / "unpacked")
    small, config = Corpus.open(tmp_path / "unpacked" / "corpus"), configs.load(tmp_path / "unpacked")
    settings = {**small.manifest["settings"], "tokens": 0, "tokenizer": held.manifest["settings"]["tokenizer"]}
    assert settings == {**held.manifest["settings"], "reject": settings["reject"]}
    assert config.data.sources == (f"text={text}:1",)
    assert (config.data.corpus, config.data.max_file_bytes) == ("", 150_000)
    export_openai(folder, tmp_path / "exported", safetensors=False)
    exported = json.loads((tmp_path / "exported" / "config.json").read_text())["sparse_gpt"]["data"]
    assert exported == {**configs.to_dict(config)["data"], "tokens": presets.tiny().data.tokens}
    manifest.update(folder, {"corpus_sha256": "ab" * 32})
    for said in ("not the corpus that the model was trained on", "no corpus there any more"):
        done = launch_here(*asked, f"--output={tmp_path / 'two.zip'}")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"data.corpus={corpus}" in done.stderr
        assert said in done.stderr
        shutil.rmtree(corpus, ignore_errors=True)
    assert not (tmp_path / "two.zip").exists()


def test_an_output_that_cannot_be_is_refused_before_the_work(
    original: tuple[Path, Params], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.jobs.store.main", lambda *_: pytest.fail("began"))
    for output, said in ((file, "must be a new .zip"), (file.with_suffix(".npz"), "must be a new .zip")):
        done = launch_here("store", f"--workdir={original[0]}", f"--output={output}")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"--output={output}: " in done.stderr
        assert said in done.stderr


@pytest.mark.parametrize("kind", ["stored", "workdir"])
def test_a_training_goes_on_from_no_model_of_another_tokenizer(
    original: tuple[Path, Params], file: Path, workdir: Path, kind: str
) -> None:
    source = file if kind == "stored" else original[0]
    flags = ("train", f"--workdir={workdir}", f"--init_from={source}", "--preset=tiny", "--config.data.tokens=30000")
    done = launch_here(*flags, "--config.train.steps=2")
    assert done.returncode == 2
    assert (
        f"--init_from={source}: its tokenizer is not that of the corpus; give --config.data.tokenizer=" in done.stderr
    )
    assert not workdir.exists()


def test_the_tokenizer_that_a_stored_model_or_workdir_was_trained_with_is_let_through(
    original: tuple[Path, Params], file: Path, tmp_path: Path
) -> None:
    folder = original[0]
    own, other = Tokenizer.load(folder / "tokenizer"), train_tokenizer(["while x:\n    pass\n"] * 9, 260)
    assert stored.tokenizer(str(file)).sha256 == own.sha256
    (tmp_path / "without").mkdir()
    for source in (str(file), str(folder)):
        check_tokenizer(source, own)
        with pytest.raises(InputError, match="its tokenizer is not that of the corpus"):
            check_tokenizer(source, other)
    for source in ("params.npz", str(tmp_path / "without")):  # nothing says what it was trained on
        check_tokenizer(source, other)


def test_damage_is_named(original: tuple[Path, Params], file: Path, workdir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--init_from=nosuch: no workdir"):
        stored.unpack("nosuch", workdir)
    torn = tmp_path / "torn.zip"
    torn.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(InputError, match=re.escape(f"{torn}: not a stored model, or damaged")):
        stored.unpack(str(torn), workdir)
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(other, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            changed = json.dumps({**json.loads(content), "params_sha256": "0"}) if name == "manifest.json" else content
            after.writestr(name, changed)
    with pytest.raises(InputError, match="fingerprint"):
        stored.unpack(str(other), workdir)
    assert not workdir.exists()
    with pytest.raises(InputError, match=r"new \.zip file"):
        stored.store(original[0], file, original[0])


def test_places_where_a_stored_model_cannot_be_opened(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").write_text("a file")
    (tmp_path / "closed").mkdir()
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and access(path, mode))
    way_out = r"cannot be made \(.+\); give a folder that can be written by workdir=FOLDER"
    for workdir in ("/proc/foo/bar", tmp_path / "here" / "run", tmp_path / "closed" / "run"):
        with pytest.raises(InputError, match=f"^workdir={workdir}: {way_out}"):
            sg.open(file, workdir=workdir)
    for cache in ("here", "closed"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        (tmp_path / "closed" / "sparse_gpt").mkdir(exist_ok=True)
        monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path) and access(path, mode))
        with pytest.raises(InputError, match=rf"^{tmp_path / cache}/sparse_gpt/model-[0-9a-f]+: {way_out}"):
            sg.open(file)
    with pytest.raises(InputError, match=r"^sg.open\('~nosuchuser/x'\): no such user"):
        sg.open("~nosuchuser/x")
    with pytest.raises(InputError, match=r"^workdir=~nosuchuser/x: no such user"):
        sg.open(file, workdir="~nosuchuser/x")


def test_scripts_refuse_a_model_that_is_not_stored(workdir: Path) -> None:
    done = launch_here("report", f"--workdir={workdir}", "--init_from=nosuch")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nosuch" in done.stderr
    assert not workdir.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "density"), [("laptop", 1 / 16), ("laptop_dense", 1), ("laptop_half", 1 / 32)])
def test_the_stored_models_are_here_and_close_quotes(workdir: Path, name: str, density: float) -> None:
    assert stored.find(name).stat().st_size < 3e6
    stored.unpack(name, workdir)
    run = Workdir(workdir)
    assert run.params_sha256 == stored.fingerprint(name)
    assert manifest.read(workdir).nonzeros == manifest.nonzeros(run.params)
    config = presets.preset(name)
    assert (run.config.model, run.config.sparsity) == (config.model, config.sparsity)
    kept, size = (sum(f(flatten(run.params)[path]) for path in SPARSE) for f in (np.count_nonzero, np.size))
    assert density * size * 0.99 <= kept <= density * size
    assert len(run.corpus.batch("train", 0, 0, 2, run.config.model.context)) == 2
    heldout = task_batch(tasks.sample(tasks.TASKS["single_double_quote"], run.tokenizer, "heldout", 16))
    assert full_task_loss(run.config, run.params, heldout) < 0.05


@pytest.mark.slow
@pytest.mark.optimized  # it takes longer to run than to compile
def test_the_stored_models_can_be_compared(tmp_path: Path) -> None:
    """Equal tokenizers; the sparse and the dense one have as many block weights that are not zero, and losses within 2%
    on the same text, the third one half as many. All of them take 6 MB."""
    assert stored.names() == ["laptop", "laptop_dense", "laptop_half"]
    assert sum(stored.find(name).stat().st_size for name in stored.names()) < 6e6
    for name in stored.names():
        stored.unpack(name, tmp_path / name)
    runs = [Workdir(tmp_path / name) for name in stored.names()]
    assert len({run.tokenizer.sha256 for run in runs}) == 1
    blocks = [
        sum(np.count_nonzero(leaf) for path, leaf in flatten(run.params).items() if path[-1] == "kernel")
        for run in runs
    ]
    assert blocks[0] == blocks[1] == 2 * blocks[2]
    sparse, dense = (sparse_vs_dense.measure_loss(run, runs[0].corpus) for run in runs[:2])
    assert dense == pytest.approx(sparse, rel=0.02)
