"""The models that a bridged run names or holds: where they are, and whether they belong together."""

from collections.abc import Collection
from pathlib import Path

from sparse_gpt import config as configs
from sparse_gpt import locks, stored
from sparse_gpt.bridges.dense import load_dense
from sparse_gpt.bridges.steering import Models
from sparse_gpt.bridges.training import BridgeProgram, restore
from sparse_gpt.config import Config
from sparse_gpt.data import Corpus, Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.records import Manifest
from sparse_gpt.training import distributed
from sparse_gpt.training.manifest import params_sha256

# A model that is sparse already would lose by becoming dense again.
_NO_ANNEALING = {"sparsity.anneal_start": 0.0, "sparsity.anneal_stop": 1e-3}


def find_folder(name: str) -> Path:
    """The workdir of that name; InputError while another process writes to it."""
    folder = Path(name).expanduser().absolute()
    locks.refuse_while_written(folder)
    return folder


def unpack_initial(config: Config, workdir: Path) -> Path | None:
    """The workdir of the model that the sparse one starts from; a stored model is unpacked into WORKDIR/initial."""
    name = config.bridge.init_from
    if not name or Path(name).expanduser().is_dir():
        return find_folder(name) if name else None
    stored.find(name, "--config.bridge.init_from")
    place = workdir / "initial"
    distributed.first_does(lambda: stored.unpack(name, place))
    return place


def start_at_target_density(config: Config, chosen_fields: Collection[str]) -> Config:
    """The configuration with its target density from the first steps on, except for fields that the user has set.

    Where the user lets the annealing begin after those steps, its end stays the configured one too.
    """
    changed = configs.replace(config, {name: to for name, to in _NO_ANNEALING.items() if name not in chosen_fields})
    try:
        return configs.validate(changed)
    except InputError:  # an end before the beginning, with which the model would stay dense
        return config


def use_tokenizer(config: Config, folder: Path, model: str) -> Config:
    """The configuration with the tokenizer of the model in `folder`; `model` says in messages which one that is.
    InputError if the configuration names a corpus or tokenizer of another."""
    tokenizer = Tokenizer.load(folder / "tokenizer")
    for field, named in (("corpus", config.data.corpus), ("tokenizer", config.data.tokenizer)):
        if named:
            other = Corpus.open(named).tokenizer if field == "corpus" else Tokenizer.load(named)
            if other.sha256 != tokenizer.sha256:
                raise InputError(
                    f"--config.data.{field}={named}: its tokenizer is not that of the {model} model in {folder}; "
                    "both models must read the same tokens, so leave it out"
                )
    return configs.replace(config, {"data.tokenizer": config.data.tokenizer or str(folder / "tokenizer")})


def check_same_tokenizer(independent: Path, dense: Path) -> None:
    """InputError unless the two workdirs have the same tokenizer."""
    if Tokenizer.load(independent / "tokenizer").sha256 != Tokenizer.load(dense / "tokenizer").sha256:
        raise InputError(
            f"--independent={independent}: its tokenizer is not that of the dense model in {dense}; train it with "
            f"--config.data.tokenizer={dense / 'tokenizer'}"
        )


def check_workdir(workdir: Path, dense_sha256: str | None = None) -> None:
    """InputError if the workdir holds a run without bridges, or one with bridges to another dense model. Without a hash
    the dense model is the workdir's own, which may not be trained yet."""
    facts = Manifest.read_if_any(workdir / Manifest.FILE)
    if facts is None:
        return
    if facts.dense_params_sha256 is None:
        raise InputError(f"{workdir}: holds a run without bridges; choose a new --workdir")
    if dense_sha256 is None and not (workdir / "dense").is_dir():
        raise InputError(f"{workdir}: its bridges lead to the model in {facts.dense}; name it by --dense")
    if dense_sha256 is not None and facts.dense_params_sha256 != dense_sha256:
        raise InputError(
            f"{workdir}: its bridges lead to another dense model; choose a new --workdir, or give that one"
        )


def load_models(folder: Path, config: Config) -> Models:
    """The two models of a finished bridged run and the bridges.

    Raises:
      InputError: the workdir holds no bridged run, or its dense model is not there or has changed.
    """
    facts = Manifest.read_if_any(folder / Manifest.FILE) or Manifest()
    if facts.dense_params_sha256 is None:
        raise InputError(f"--workdir={folder}: not a bridged run; python -m launch.bridge makes one")
    beside = folder / "dense"  # still right when the folder has been moved
    dense = load_dense(beside if beside.is_dir() else Path(facts.dense or ""), config)
    if dense.params_sha256 != facts.dense_params_sha256:
        raise InputError(f"--workdir={folder}: the dense model in {facts.dense} is not the one it was bridged to")
    program = BridgeProgram(config, None, dense.config)
    _, state = restore(folder, program)
    return Models(
        program.bridged,
        program.place(dense.params),
        state.params,
        state.optimizer.bridges,
        params_sha256(state.params),
        dense.params_sha256,
    )
