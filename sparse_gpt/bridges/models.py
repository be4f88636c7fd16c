"""The models that a bridged run names or holds: where they are, and whether they belong together."""

from collections.abc import Collection
from pathlib import Path

from sparse_gpt import config as configs
from sparse_gpt import locks, stored
from sparse_gpt.bridges.dense import load_dense
from sparse_gpt.bridges.steering import Models
from sparse_gpt.bridges.training import exact_program, restore
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
    stored.find(name, f"--config.bridge.init_from={name}")
    place = workdir / "initial"
    distributed.first_does(lambda: stored.unpack(name, place))
    return place


def check_initial(config: Config, folder: Path, chosen_fields: Collection[str]) -> None:
    """InputError unless the model in `folder`, which bridge.init_from names, computes as the configuration says: its
    parameters, whose shapes may be the same, would be those of another function. What the user has set of its sparsity
    may differ, for it can be trained to that."""
    theirs, ours = _deciding(configs.load(folder)), _deciding(config)
    chosen = {field for field in chosen_fields if field.startswith("sparsity.")}
    if "sparsity.density" in chosen and not config.sparsity.embedding_density:
        chosen.add("sparsity.embedding_density")  # which is that of sparsity.density then
    for field in [field for field in ours if theirs.get(field, ours[field]) != ours[field] and field not in chosen]:
        own, wanted = configs.as_flag(theirs[field]), configs.as_flag(ours[field])
        instead = "" if field.startswith("model.") else f", or --config.{field}={wanted} if that is to change"
        raise InputError(
            f"--config.bridge.init_from={config.bridge.init_from}: its {field} is {own}, that of this run {wanted}; "
            f"set --config.{field}={own}{instead}"
        )


def _deciding(config: Config) -> dict[str, object]:
    """What decides how a model computes, by field; sites only where AbsTopK acts. The context does not."""
    s = config.sparsity
    found = {f"model.{name}": value for name, value in vars(config.model).items() if name != "context"}
    found |= {"sparsity.density": s.density, "sparsity.embedding_density": configs.embedding_density(s)}
    found |= {"sparsity.activation_fraction": s.activation_fraction}
    sites = tuple(sorted(configs.activation_sites(s)))
    return found | ({"sparsity.activation_sites": sites} if sites else {})


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
    """The two models of a finished bridged run, which compute in float32, and the bridges.

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
    program = exact_program(config, dense.config)
    _, state = restore(folder, program)
    return Models(
        program.bridged,
        program.place(dense.params),
        state.params,
        state.optimizer.bridges,
        params_sha256(state.params),
        dense.params_sha256,
    )
