"""Parameters of a training in one .npz file, under the reference's names."""

from pathlib import Path

import numpy as np

from sparse_gpt.config import Config
from sparse_gpt.interop import openai_weights
from sparse_gpt.io import replacing
from sparse_gpt.parameters import Params
from sparse_gpt.training import distributed, loop, sharding


class ParamsFile:
    """Writes the parameters of a training once: called after every step, and finished at its end.

    Attributes:
      config: of the model.
      path: the file; None: nothing is written.
      at: after how many steps it is written; None: at the end, unless the training was interrupted.
    """

    def __init__(self, config: Config, path: Path | None, at: int | None):
        self.config, self.path, self.at = config, path, at

    def __call__(self, step: int, params: Params) -> None:
        """After `step` finished steps."""
        if step == self.at:
            self._write(sharding.to_host(params))

    def finish(self, result: loop.Result) -> None:
        """After the training."""
        if self.at is None and not result.interrupted:
            self._write(result.params)

    def _write(self, params: Params) -> None:
        if self.path is not None and distributed.is_first():
            tensors = openai_weights.to_tensors(self.config.model, params)
            with replacing(self.path) as temporary:
                np.savez(temporary, allow_pickle=False, **tensors)
