"""Parameters that a training starts from: of another workdir, of a stored model, or in a file of the reference."""

from pathlib import Path

import numpy as np

from sparse_gpt import config as configs
from sparse_gpt import locks, stored
from sparse_gpt.arrays import read_npz
from sparse_gpt.config import Config
from sparse_gpt.data import Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.interop import openai_weights
from sparse_gpt.parameters import Params
from sparse_gpt.training import loop
from sparse_gpt.training.checkpoint import load_params


def load_initial(source: str, config: Config) -> Params:
    """The parameters that --init_from names.

    Args:
      source: a workdir, a stored model, or an .npz file under the reference's names.
      config: of the model that is to have them.

    Raises:
      InputError: there is none, another process writes to the workdir, or the parameters do not fit the model.
    """
    path = Path(source).expanduser()
    if path.suffix == ".npz":
        arrays = read_npz(path, f"--init_from={source}")
        tensors = {
            name: array if array.dtype.kind == "c" else np.asarray(array, np.float32) for name, array in arrays.items()
        }
        params = openai_weights.to_params(config.model, tensors, str(path))
    elif path.is_dir():
        locks.refuse_while_written(path)
        params, _ = load_params(path, configs.load(path).model)
    else:
        params = stored.load(source)[1]
    loop.check_params(config, params)
    return params


def check_tokenizer(source: str, found: Tokenizer) -> None:
    """InputError if the parameters that --init_from names were trained on the tokens of another tokenizer than `found`:
    their embeddings would be those of other tokens. An .npz file and a workdir trained on given batches do not say."""
    path = Path(source).expanduser()
    if path.suffix == ".npz" or (path.is_dir() and not (path / "tokenizer").is_dir()):
        return
    if path.is_dir():
        own, folder = Tokenizer.load(path / "tokenizer"), str(path / "tokenizer")
    else:
        own, folder = stored.tokenizer(source), f"RUN/tokenizer (launch.evaluate --init_from={source} makes RUN)"
    if own.sha256 != found.sha256:
        raise InputError(
            f"--init_from={source}: its tokenizer is not that of the corpus; give --config.data.tokenizer={folder}, or "
            "a corpus that was prepared with it"
        )
