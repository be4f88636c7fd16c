"""Whole imports and exports: a folder in the reference's format to a workdir, and back."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sparse_gpt import config as configs
from sparse_gpt import locks
from sparse_gpt.config import Config
from sparse_gpt.data import corpus_folder, for_elsewhere
from sparse_gpt.data.files import sha256_file
from sparse_gpt.data.tokenizer import Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.folders import Snapshot, missing, remove_empty
from sparse_gpt.interop import huggingface, layouts, openai, openai_weights
from sparse_gpt.io import Tree, disk_errors, write_json
from sparse_gpt.parameters import parameter_table
from sparse_gpt.records import Manifest
from sparse_gpt.training import manifest
from sparse_gpt.training.checkpoint import load_params, save_params

TOKENIZER_PAIR = ("encoder.json", "vocab.bpe")


def import_openai(
    source: Path, workdir: Path, tokenizer: Path | None = None, say: Callable[[str], object] = lambda _: None
) -> openai.Imported:
    """Makes a workdir of a folder in the reference's format.

    Args:
      source: holds beeg_config.json, final_model.pt and perhaps encoder.json with vocab.bpe.
      workdir: must not hold anything yet.
      tokenizer: folder of the tokenizer, if it is not in `source`.
      say: called with what begins; large models take minutes.

    Raises:
      InputError: see openai.read_model; also if the tokenizer has more entries than the model. Nothing is written then.
    """
    layouts.check_folder(source)
    _check_new(workdir, "--workdir")
    say("reading and checking the weights")
    model = openai.read_model(source)
    with new_folder(workdir, "--workdir") as folder:
        facts: Tree = {"imported": {"model_sha256": sha256_file(source / openai.WEIGHTS)}, "seeds": {}}
        found = _tokenizer(source, tokenizer, model)
        if found is not None:
            found.save(folder / "tokenizer")
            facts["tokenizer_sha256"] = found.sha256
        say("writing the checkpoint")
        save_params(folder, model.params)
        say("taking fingerprints")
        facts |= {"params_sha256": manifest.params_sha256(model.params), "step": 0}
        facts |= {"nonzeros": manifest.nonzeros(model.params)}
        write_json(folder / "config.json", configs.to_dict(model.config))
        manifest.describe(facts).write(folder / Manifest.FILE)
    return model


def describe(model: openai.Imported, target: Path) -> str:
    """What was imported into a workdir, for a person."""
    kept, m = (manifest.read(target).nonzeros or {}).values(), model.config.model
    total = sum(spec.size for spec in parameter_table(m).values())
    return "\n".join(
        [
            f"{m.n_layer} layers of width {m.d_model}, vocabulary {m.vocab_size}, context {m.context}",
            f"{total:,} parameters in {len(kept)} tensors, {sum(kept):,} of them nonzero -> {target}",
            *(f"note: {note}" for note in model.notes),
        ]
    )


def export_openai(
    workdir: Path, output: Path, safetensors: bool = True, say: Callable[[str], object] = lambda _: None
) -> Config:
    """Writes a workdir's newest parameters in the reference's format, with safetensors, config.json and a model card.

    Raises:
      InputError: if the workdir holds no model, or `output` holds anything.
    """
    config = configs.load(workdir)
    say("reading the checkpoint")
    params, step = load_params(workdir, config.model)
    facts = manifest.read(workdir).tree()
    facts |= {"params_sha256": manifest.params_sha256(params), "nonzeros": manifest.nonzeros(params), "step": step}
    with new_folder(output, "--output") as folder:
        say(f"writing {openai.WEIGHTS}")
        openai.write_model(folder, config, params)
        if safetensors:
            say("writing model.safetensors")
            tensors = openai_weights.to_tensors(config.model, params)
            metadata = {"format": "pt", "params_sha256": facts["params_sha256"]}
            huggingface.write_safetensors(folder / "model.safetensors", tensors, metadata)
        elsewhere = for_elsewhere(corpus_folder(workdir, config), config)
        write_json(folder / openai.OWN_CONFIG, huggingface.config_json(elsewhere))
        (folder / "README.md").write_text(huggingface.model_card(output.name, config, facts))
        if (workdir / "tokenizer").is_dir():
            Tokenizer.load(workdir / "tokenizer").save(folder)
    return config


def _tokenizer(source: Path, given: Path | None, model: openai.Imported) -> Tokenizer | None:
    """The tokenizer of an imported model, if there is one."""
    if given is None and not all((source / name).is_file() for name in TOKENIZER_PAIR):
        model.notes.append("no tokenizer found; give --tokenizer=DIR (encoder.json and vocab.bpe) to work on text")
        return None
    folder = given or source
    tokenizer, entries = Tokenizer.load(folder), model.config.model.vocab_size
    if tokenizer.vocab_size > entries:
        raise InputError(f"{folder}: tokenizer of {tokenizer.vocab_size} entries, but the model has only {entries}")
    return tokenizer


@contextlib.contextmanager
def new_folder(target: Path, flag: str) -> Iterator[Path]:
    """A scratch folder that becomes `target` when all went well, and is removed otherwise."""
    _check_new(target, flag)
    scratch, above = target.with_name(f".{target.name}.partial"), missing(target.parent)
    try:
        with locks.writing(scratch):  # whatever is in it, a killed process has left
            Snapshot(scratch, empty=True).restore()
            try:
                _check_new(target, flag)  # nobody else has made it since
                with disk_errors(target):
                    yield scratch
                    (scratch / locks.NAME).unlink(missing_ok=True)
                    os.replace(scratch, target)
            finally:
                Snapshot(scratch, empty=True).restore()
    finally:
        remove_empty([scratch, *above])


def _check_new(target: Path, flag: str) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{flag}={target}: is there already and not empty; choose a new folder")
