"""One run of a model on prompts: tokens, logits and recorded activations."""

import dataclasses
from collections.abc import Hashable, Iterable, Sequence

import jax
import numpy as np

from sparse_gpt.config import NODE_SITES
from sparse_gpt.data import Tokenizer
from sparse_gpt.errors import InputError
from sparse_gpt.model.taps import OBSERVED, Tap, chain, identity, recorder
from sparse_gpt.model.transformer import Transformer, apply
from sparse_gpt.parameters import Params

BUCKET = 32  # prompts are padded to a multiple of it, so that few shapes are compiled


@dataclasses.dataclass(frozen=True)
class Run:
    """What a model did on B prompts.

    ``run[site, layer]`` is a recorded activation (B, T, width).

    Attributes:
        tokens: (B, T) int32, padded with 0 on the right.
        lengths: (B,) tokens of each prompt.
        logits: (B, T, V) float32.
        activations: (site, layer) -> (B, T, width).
        tokenizer: for `most_likely`.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    logits: np.ndarray
    activations: dict[tuple[str, int], np.ndarray]
    tokenizer: Tokenizer = dataclasses.field(repr=False)

    def __getitem__(self, place: tuple[str, int]) -> np.ndarray:
        if not isinstance(place, Hashable) or place not in self.activations:
            raise InputError(f"{place}: not recorded; recorded are {sorted(self.activations)}")
        return self.activations[place]

    def probabilities(self, prompt: int = 0) -> np.ndarray:
        """(V,) of the token that follows a prompt."""
        count = len(self.lengths)
        try:
            number = range(count)[prompt]
        except (IndexError, TypeError):
            raise InputError(
                f"prompt {prompt!r:.80}: the run has {count}, counted from 0; how many tokens is `count`"
            ) from None
        logits = self.logits[number, self.lengths[number] - 1].astype(np.float64)
        shares = np.exp(logits - logits.max())
        return shares / shares.sum()

    def most_likely(self, prompt: int = 0, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest next tokens after a prompt: text and probability."""
        if not isinstance(count, int | np.integer) or count < 0:
            raise InputError(f"count {count!r:.80}: give how many tokens, 0 or more")
        shares = self.probabilities(prompt)
        best = np.argsort(-shares, kind="stable")[:count]
        return [(self.tokenizer.token_text(int(token)), float(shares[token])) for token in best]


def run_model(
    model: Transformer,
    params: Params,
    tokenizer: Tokenizer,
    prompts: str | Sequence[str] | np.ndarray,
    tap: Tap,
    record: Iterable[str],
) -> Run:
    """See `Model.run`."""
    if not isinstance(record, Iterable):
        raise InputError(f"record {record!r:.80}: give a node site, or a list of them")
    sites, context = (record,) if isinstance(record, str) else tuple(record), model.config.context
    unknown = [site for site in sites if site not in (*NODE_SITES, *OBSERVED)]
    if unknown:
        raise InputError(f"record: unknown site {unknown[0]!r}; choose from {', '.join((*NODE_SITES, *OBSERVED))}")
    tokens, lengths = _tokens(prompts, tokenizer)
    if not len(lengths):
        raise InputError("no prompts to run; give one at least")
    if lengths.min() < 1 or tokens.shape[1] > context:
        found = f"prompts of {lengths.min()} to {tokens.shape[-1]} tokens"
        raise InputError(f"{found}; the model takes 1 to its context, {context}")
    if tokens.min() < 0 or tokens.max() >= model.config.vocab_size:
        raise InputError(f"token ids {tokens.min()} to {tokens.max()}; the vocabulary has {model.config.vocab_size}")
    tokens, time = tokens.astype(np.int32), tokens.shape[1]
    padded = np.pad(tokens, ((0, 0), (0, min(context, -(-time // BUCKET) * BUCKET) - time)))
    store: dict[tuple[str, int], jax.Array] = {}
    logits = apply(model, params, padded, tap=chain(_first(time, tap), recorder(store, sites)))
    activations = {place: np.asarray(value)[:, :time] for place, value in store.items()}
    return Run(tokens, lengths, np.asarray(logits, np.float32)[:, :time], activations, tokenizer)


def _first(time: int, tap: Tap) -> Tap:
    """`tap` on the first tokens alone: what stands after them is padding."""

    def first(site: str, layer: int, x: jax.Array) -> jax.Array:
        return x.at[:, :time].set(tap(site, layer, x[:, :time])) if tap is not identity else x

    return first


def _tokens(prompts: str | Sequence[str] | np.ndarray, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """(B, T) ids, of any whole type, and (B,) lengths."""
    if isinstance(prompts, np.ndarray | jax.Array):
        ids = np.atleast_2d(prompts)
        if ids.ndim != 2 or ids.dtype.kind not in "iu":
            raise InputError(
                f"prompts: {ids.dtype} of shape {ids.shape}; give whole token ids (T,) or (B, T), or texts"
            )
        return ids, np.full(len(ids), ids.shape[1], np.int32)
    texts = [prompts] if isinstance(prompts, str) else list(prompts) if isinstance(prompts, Iterable) else [prompts]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"prompts: {prompts!r:.80}: give a text, a list of texts, or token ids in an array (B, T)")
    rows = [tokenizer.encode(text) for text in texts]
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.zeros((len(rows), lengths.max(initial=0)), np.int32)
    for target, row in zip(tokens, rows, strict=True):
        target[: len(row)] = row
    return tokens, lengths
