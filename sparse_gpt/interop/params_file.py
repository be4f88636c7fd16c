"""Parameters of a training in one .npz file, under the reference's names."""

from pathlib import Path

import numpy as np

from sparse_gpt.config import Config
from sparse_gpt.errors import InputError
from sparse_gpt.interop import openai_weights
from sparse_gpt.io import replacing
from sparse_gpt.parameters import Params
from sparse_gpt.training import distributed, loop, schedules, sharding


class ParamsFile:
    """Writes the parameters of a training once: called at its start and after every step, and finished at its end.

    Attributes:
      config: of the training.
      path: the file; None: nothing is written.
      at: after how many steps it is written; None: at the end, unless the training was interrupted.

    Raises:
      InputError: `at` is more than the training has.
    """

    def __init__(self, config: Config, path: Path | None, at: int | None):
        self.config, self.path, self.at = config, path, at
        self._begun = False
        total = schedules.iterations(config)
        if at is not None and at > total:
            raise InputError(f"--params_at={at}: the run has {total} steps; give at most that, or leave it out")

    def __call__(self, step: int, params: Params) -> None:
        """After `step` finished steps, the first of which are those that the training resumes after.

        Raises:
          InputError: it resumes after more steps than `at`, and the file has not been written before.
        """
        if not self._begun:
            self._begun = True
            distributed.first_does(lambda: self._check_start(step))
        if step == self.at:
            self._write(sharding.to_host(params))

    def _check_start(self, start: int) -> None:
        # An interrupted run that has written the file must still go on with the same command.
        if self.path is not None and self.at is not None and self.at < start and not self.path.exists():
            raise InputError(
                f"--params_at={self.at}: the run resumes after {start} steps; give {start} or more, or a new --workdir"
            )

    def finish(self, result: loop.Result) -> None:
        """After the training."""
        if self.at is None and not result.interrupted:
            self._write(result.params)

    def _write(self, params: Params) -> None:
        if self.path is not None and distributed.is_first():
            tensors = openai_weights.to_tensors(self.config.model, params)
            # Given a name instead of a file, NumPy adds ".npz" to one that ends otherwise.
            with replacing(self.path) as temporary, temporary.open("wb") as archive:
                np.savez(archive, allow_pickle=False, **tensors)
