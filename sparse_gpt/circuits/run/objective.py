"""What a search minimizes, sample by sample: the task loss, or the divergence from the model's own answer.

The divergence is KL(model || circuit) between the two-way answers, answer against foil, of the whole model and of the
circuit. A circuit near it does what the model does, its mistakes and its doubts included, so that the target asks the
same of tasks that the model does well and of tasks that it does not.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SMALLEST = 1e-6  # share of either side in what is matched


def foil_shares(logits: np.ndarray) -> np.ndarray:
    """(B,) probability of the foil, of the two, from (B, 2) logits of answer and foil."""
    margin = (logits[:, 0] - logits[:, 1]).astype(np.float64)
    return np.clip(1 / (1 + np.exp(np.clip(margin, -60, 60))), SMALLEST, 1 - SMALLEST).astype(np.float32)


def losses(margin: np.ndarray, foil_share: np.ndarray | None = None) -> np.ndarray:
    """(..., B) nats from margins (..., B), answer - foil: task losses, or divergences where the model's probability of
    the foil (B,) is given. In float64."""
    return np.asarray(_losses(np.asarray(margin, np.float64), foil_share, np))


def traced_losses(margin: jax.Array, foil_share: jax.Array | None = None) -> jax.Array:
    """`losses` inside a compiled function."""
    return jnp.asarray(_losses(margin, foil_share, jnp))


def _losses(margin: Any, foil_share: Any, library: Any) -> Any:
    surprise = library.logaddexp(0.0, -margin)
    if foil_share is None:
        return surprise
    entropy = -(foil_share * library.log(foil_share) + (1 - foil_share) * library.log1p(-foil_share))
    return surprise + foil_share * margin - entropy
