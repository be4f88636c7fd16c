"""Training that breaks off after a step, with no chance to save."""

from sparse_gpt.parameters import Params
from sparse_gpt.training.loop import AtStep


class BrokenOffError(Exception):
    """Raised where a run breaks off."""


def after(step: int | None) -> AtStep:
    """What to call after every step, so that a run breaks off after that one; None: it does not."""

    def stop(finished: int, params: Params) -> None:
        del params
        if finished == step:
            raise BrokenOffError

    return stop
