"""Names of activations: this project's (LAYER.SITE) and the reference's hook names."""

from collections.abc import Sequence

from sparse_gpt.config import NODE_SITES, ModelConfig
from sparse_gpt.errors import InputError

# What our tap calls a place, and the reference's name for what it sees there.
OPENAI_NAMES = {
    "resid_in": "{}.resid_in",
    "attn_in": "{}.attn.act_in",
    "attn_q": "{}.attn.q",
    "attn_k": "{}.attn.k",
    "attn_v": "{}.attn.v",
    "attn_y": "{}.attn.y",
    "attn_out": "{}.attn.resid_delta",
    "resid_mid": "{}.resid_mid",
    "mlp_in": "{}.mlp.act_in",
    "mlp_neuron": "{}.mlp.post_act",
    "mlp_out": "{}.mlp.resid_delta",
    "resid_final": "final_resid",
}
FINAL = "resid_final"  # seen once, after the last layer

Place = tuple[str, int]  # site and layer, as a recorder stores them


def places(model: ModelConfig) -> list[Place]:
    """Every place with a name, in the order of the forward pass."""
    layers = [(site, layer) for layer in range(model.n_layer) for site in OPENAI_NAMES if site != FINAL]
    return [*layers, (FINAL, model.n_layer)]


def name(place: Place, openai: bool = False) -> str:
    """``3.attn_q``, or the reference's ``3.attn.q``; the stream after the last layer has no layer number."""
    site, layer = place
    if openai:
        return OPENAI_NAMES[site].format(layer)
    return site if site == FINAL else f"{layer}.{site}"


def select(model: ModelConfig, wanted: Sequence[str]) -> list[Place]:
    """The places named by `wanted`: "all", a site (every layer), LAYER.SITE, or a hook name of the reference.

    Raises:
      InputError: for a name that is none of these.
    """
    chosen: set[Place] = set()
    for item in wanted:
        found = {place for place in places(model) if item in ("all", place[0], name(place), name(place, openai=True))}
        if not found:
            raise InputError(
                f"activation {item!r}: no such place in this model of {model.n_layer} layers; name a site "
                f"({', '.join(NODE_SITES)}, {', '.join(site for site in OPENAI_NAMES if site not in NODE_SITES)}), "
                "LAYER.SITE, a hook name of the reference such as 0.attn.act_in, or all"
            )
        chosen |= found
    return [place for place in places(model) if place in chosen]
