"""beeg_config.json, the reference's model configuration, to and from ours.

Released files carry fields that the published code does not know, older names of fields, and lack newer ones. Every
field is therefore either mapped, known to leave the forward pass alone, or refused unless its value switches the
unknown feature off.
"""

import math
from collections.abc import Mapping

from sparse_gpt import config as configs
from sparse_gpt.config import NODE_SITES, RESIDUAL_SITES, Config, ModelConfig, SparsityConfig
from sparse_gpt.errors import InputError
from sparse_gpt.io import Json, Tree

FILE = "beeg_config.json"

# Fields that decide the forward pass, with the value an absent field stands for.
DEFAULTS: Mapping[str, object] = {
    "block_size": 1024,
    "vocab_size": 50304,
    "n_layer": 12,
    "n_head": 12,
    "d_head": None,
    "d_model": 768,
    "d_mlp": None,
    "bias": True,
    "ln_bias": True,
    "rms_norm": False,
    "residual_activation_type": "identity",
    "activation_type": "gelu",
    "afrac": None,
    "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out",
    "tied_unembed": True,
    "enable_bigram_table": False,
    "d_pos_emb": None,
    "sinusoidal_cat_pos_emb": False,
    "sink": False,
}
# Fields that leave the logits of a trained model alone.
_KERNELS = {"flash", "enable_sparse_kernels", "sparse_matmul_impl", "grad_checkpointing"}
_BOOKKEEPING = {"tokenizer_name", "debug_nans", "debug_exact_topk", "bigram_table_rank", "expname", "name"}
_TRAINING = {  # how the model was trained
    *("dropout", "dropout_cat_pos_emb", "learnable_bigram_table", "afrac_ste", "afrac_ste_only_non_neurons", "n_ctx"),
    *("pfrac", "expansion_factor", "expansion_factor_mlp", "minimum_alive_per_neuron", "achyuta_mixed_neuronwise_v2"),
    *("pfrac_anneal", "pfrac_anneal_mode", "pfrac_anneal_exponent", "pfrac_anneal_initial", "pfrac_anneal_start_frac"),
    *("pfrac_anneal_stop_frac", "pfrac_anneal_schedule_lr_with_L0", "lr", "lr_decay", "lr_warmup_frac", "weight_decay"),
    *(
        "eps",
        "adam_beta1",
        "adam_beta2",
        "gradclip",
        "enable_mixed",
        "global_bs",
        "total_tokens",
        "dataset_name",
        "seed",
    ),
}
NEUTRAL = _KERNELS | _BOOKKEEPING | _TRAINING
ALIASES = {"n_mlp": "d_mlp", "n_embd": "d_model"}  # released files have n_embd beside d_model
_CHOICES = {"residual_activation_type": ("identity", "relu"), "activation_type": ("gelu", "relu")}
_OFF = ("", "none", "identity")  # like null and false, values that switch an unknown feature off


def from_fields(fields: Mapping[str, object], source: str = FILE) -> tuple[Config, list[str]]:
    """Our configuration for a reference configuration, and a note on every field that was left aside.

    Positions come out as "additive", "concat" or "sinusoidal" and `final_bias` as True; the weights may show that
    less is needed (see openai_weights.refine).

    Raises:
      InputError: for a value that cannot be, and for an unknown field that could change the forward pass.
    """
    values, notes = _known(fields, source)
    d_head = values["d_head"]
    if d_head is None:
        if values["d_model"] % values["n_head"]:
            raise InputError(
                f"{source}: d_model={values['d_model']} is no multiple of n_head={values['n_head']}; give d_head"
            )
        d_head = values["d_model"] // values["n_head"]
    d_position = values["d_pos_emb"] or 0
    position = ("sinusoidal" if values["sinusoidal_cat_pos_emb"] else "concat") if d_position else "additive"
    model = ModelConfig(
        n_layer=values["n_layer"],
        d_model=values["d_model"],
        n_head=values["n_head"],
        d_head=d_head,
        d_mlp=values["d_mlp"] or 4 * values["d_model"],
        vocab_size=values["vocab_size"],
        context=values["block_size"],
        norm="rms" if values["rms_norm"] else "layer",
        norm_bias=values["ln_bias"] and not values["rms_norm"],
        activation=values["activation_type"],
        residual_activation=values["residual_activation_type"],
        bias=values["bias"],
        final_bias=True,
        attention_sink=values["sink"],
        bigram=values["enable_bigram_table"],
        position=position,
        d_position=d_position,
        tied=values["tied_unembed"],
    )
    sparsity = SparsityConfig(
        density=1.0,
        min_alive=0,
        activation_fraction=_fraction(values["afrac"], source),
        activation_sites=_sites(values["afrac_loctypes"], source),
    )
    # The reference's file is checked like one of ours: sizes have ranges.
    return configs.from_dict(configs.to_dict(Config(model=model, sparsity=sparsity)), source), notes


def to_fields(config: Config) -> Tree:
    """The reference configuration of one of our models."""
    m, s = config.model, config.sparsity
    sites = configs.activation_sites(s)
    return {
        "block_size": m.context,
        "vocab_size": m.vocab_size,
        "n_layer": m.n_layer,
        "n_head": m.n_head,
        "d_head": m.d_head,
        "d_model": m.d_model,
        "dropout": 0.0,
        "bias": m.bias,
        "ln_bias": m.norm_bias,
        "rms_norm": m.norm == "rms",
        "residual_activation_type": m.residual_activation,
        "activation_type": m.activation,
        "afrac": s.activation_fraction if sites else None,
        "afrac_loctypes": ",".join(sites) or DEFAULTS["afrac_loctypes"],
        "debug_nans": False,
        "tied_unembed": m.tied,
        "tokenizer_name": "custom",
        "grad_checkpointing": False,
        "d_mlp": m.d_mlp,
        "enable_bigram_table": m.bigram,
        "learnable_bigram_table": m.bigram,
        "d_pos_emb": m.d_position or None,
        "dropout_cat_pos_emb": False,
        "sinusoidal_cat_pos_emb": m.position == "sinusoidal",
        "enable_sparse_kernels": False,
        "flash": True,  # the reference has sinks only on this path
        "sink": m.attention_sink,
    }


def _known(fields: Mapping[str, object], source: str) -> tuple[Tree, list[str]]:
    """Every field of DEFAULTS with a value of the right type, and notes on the others."""
    given = dict(fields)
    notes: list[str] = []
    for old, new in ALIASES.items():
        value = given.pop(old, None)
        if value is None:
            continue
        if given.get(new) is None:
            given[new] = value
        elif old == "n_embd":
            notes.append(f"n_embd={value} left aside (d_model={given[new]} decides)")
        elif given[new] != value:
            raise InputError(f"{source}: {old}={value} and {new}={given[new]} name the same size; remove the wrong one")
    values = {}
    for name, default in DEFAULTS.items():
        value = given.pop(name, default)
        values[name] = _checked(name, default if value is None else value, source)
    for name, value in sorted(given.items()):
        shown = str(value)[:60]
        if name in NEUTRAL:
            if name not in to_fields(Config()):
                notes.append(f"{name}={shown} left aside (it does not change the forward pass)")
        elif value is None or value is False or value in _OFF:
            notes.append(f"unknown field {name}={shown} left aside (switched off)")
        else:
            raise InputError(
                f"{source}: unknown field {name}={shown} could change the forward pass; "
                "remove it from the file if you know that it does not"
            )
    return values, notes


def _checked(name: str, value: object, source: str) -> Json:
    """`value` if it has the type and range of the field."""
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise InputError(f"{source}: {name}={value!r}; expected one of {', '.join(_CHOICES[name])}")
    elif name == "afrac_loctypes":
        if not isinstance(value, str):
            raise InputError(f"{source}: {name}={value!r}; expected a comma list of places")
    elif name == "afrac":
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"{source}: {name}={value!r}; expected a fraction or null")
    elif isinstance(DEFAULTS[name], bool):
        if not isinstance(value, bool):
            raise InputError(f"{source}: {name}={value!r}; expected true or false")
    elif value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"{source}: {name}={value!r}; expected a positive integer")
    return value


def _fraction(afrac: float | None, source: str) -> float:
    """AbsTopK's fraction; 0 stands for off."""
    if afrac is None:
        return 0.0
    if not (0 < afrac <= 1 and math.isfinite(afrac)):
        raise InputError(f"{source}: afrac={afrac}; expected a fraction in (0, 1], or null for off")
    return float(afrac)


def _sites(text: str, source: str) -> tuple[str, ...]:
    """The places where AbsTopK acts. The reference matches names to the letter."""
    found = tuple(filter(None, text.split(",")))
    for name in found:
        if name not in NODE_SITES + RESIDUAL_SITES:
            allowed = ", ".join(NODE_SITES + RESIDUAL_SITES)
            raise InputError(f"{source}: afrac_loctypes names {name!r}; expected a comma list (no spaces) of {allowed}")
    return found
