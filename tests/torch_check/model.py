"""A small PyTorch transformer with the reference's options, parameter names and activation names.

Written from the method's description with PyTorch's own modules, so that what PyTorch computes (RMSNorm's epsilon,
exact GELU, attention, top-k) is compared and not what we believe it computes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Norms:
    """Makes the norms that a configuration asks for."""

    def __init__(self, config: Mapping[str, Any]):
        self.config = config

    def __call__(self, width: int) -> nn.Module:
        return nn.RMSNorm(width) if self.config["rms_norm"] else nn.LayerNorm(width, bias=self.config["ln_bias"])


class Sink(nn.Module):
    """One learned logit per head."""

    def __init__(self, heads: int):
        super().__init__()
        self.sink_logit = nn.Parameter(torch.zeros(heads))


class Attention(nn.Module):
    """Causal attention."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        self.c, read, heads = c, c["d_model"] + (c["d_pos_emb"] or 0), c["n_head"] * c["d_head"]
        self.c_attn = nn.Linear(read, 3 * heads, bias=c["bias"])
        self.c_proj = nn.Linear(heads, c["d_model"], bias=c["bias"])
        if c["sink"]:
            self.attn_imp = Sink(c["n_head"])

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The heads' outputs side by side, from (B, T, heads * d_head) each."""
        heads = [x.unflatten(2, (self.c["n_head"], -1)).transpose(1, 2) for x in (q, k, v)]
        if not self.c["sink"]:
            return functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
        scores = heads[0] @ heads[1].transpose(2, 3) / self.c["d_head"] ** 0.5
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
        sink = self.attn_imp.sink_logit[None, :, None, None].expand(*scores.shape[:3], 1)
        weights = torch.softmax(torch.cat([scores, sink], dim=-1), dim=-1)[..., :-1]
        return (weights @ heads[2]).transpose(1, 2).flatten(2)


class Block(nn.Module):
    """One layer's parameters."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        norm = Norms(c)
        self.ln_1, self.ln_2 = norm(c["d_model"]), norm(c["d_model"])
        if c["d_pos_emb"]:
            self.ln_p1, self.ln_p2 = norm(c["d_pos_emb"]), norm(c["d_pos_emb"])
        self.attn = Attention(c)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(c["d_model"] + (c["d_pos_emb"] or 0), c["d_mlp"], bias=c["bias"]),
                "c_proj": nn.Linear(c["d_mlp"], c["d_model"], bias=c["bias"]),
            }
        )


class Model(nn.Module):
    """The whole model; `forward` returns logits and activations by hook name."""

    def __init__(self, c: Mapping[str, Any]):
        super().__init__()
        self.c = c
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(c["vocab_size"], c["d_model"]),
                "wpe": nn.Embedding(c["block_size"], c["d_pos_emb"] or c["d_model"]),
                "h": nn.ModuleList([Block(c) for _ in range(c["n_layer"])]),
                "ln_f": Norms(c)(c["d_model"]),
            }
        )
        self.lm_head = nn.Linear(c["d_model"], c["vocab_size"], bias=False)
        self.register_buffer("final_logits_bias", torch.zeros(c["vocab_size"]))
        if c["enable_bigram_table"]:
            self.bigram_table = nn.Parameter(torch.zeros(c["vocab_size"], c["vocab_size"]))
        if c["tied_unembed"]:
            self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        t, self.seen = self.transformer, {}
        x, position = t["wte"](tokens), t["wpe"].weight[: tokens.shape[1]]
        if self.c["d_pos_emb"] is None:
            x, position = x + position, None
        for layer, block in enumerate(t["h"]):
            x = self._sublayers(layer, block, x, position)
        x = self._save("final_resid", x)
        logits = self.lm_head(t["ln_f"](x)) + self.final_logits_bias
        if self.c["enable_bigram_table"]:
            # As the reference does: the last token's row gets no gradient.
            logits = logits + functional.embedding(tokens, self.bigram_table, padding_idx=-1)
        return logits, self.seen

    def _sublayers(self, layer: int, block: Block, x: Tensor, position: Tensor | None) -> Tensor:
        relu = self.c["residual_activation_type"] == "relu"
        read = self._read(block.ln_1(self._save(f"{layer}.resid_in", x)), block, "ln_p1", position)
        read = self._save(f"{layer}.attn.act_in", self._sparse("attn_in", read))
        qkv = [
            self._sparse(f"attn_{n}", part)
            for n, part in zip("qkv", block.attn.c_attn(read).chunk(3, dim=2), strict=True)
        ]
        for n, part in zip("qkv", qkv, strict=True):
            self._save(f"{layer}.attn.{n}", part)
        y = self._save(f"{layer}.attn.y", block.attn(*qkv))
        x = x + self._save(f"{layer}.attn.resid_delta", self._sparse("attn_out", block.attn.c_proj(y)))
        x = self._sparse("resid_post_attn", torch.relu(x) if relu else x)
        read = self._read(block.ln_2(self._save(f"{layer}.resid_mid", x)), block, "ln_p2", position)
        hidden = block.mlp["c_fc"](self._save(f"{layer}.mlp.act_in", self._sparse("mlp_in", read)))
        hidden = functional.gelu(hidden) if self.c["activation_type"] == "gelu" else torch.relu(hidden)
        hidden = self._save(f"{layer}.mlp.post_act", self._sparse("mlp_neuron", hidden))
        x = x + self._save(f"{layer}.mlp.resid_delta", self._sparse("mlp_out", block.mlp["c_proj"](hidden)))
        return self._sparse("resid_post_mlp", torch.relu(x) if relu else x)

    def _read(self, read: Tensor, block: Block, norm: str, position: Tensor | None) -> Tensor:
        if position is None:
            return read
        own = getattr(block, norm)(position)
        return torch.cat([read, own.expand(len(read), *own.shape)], dim=-1)

    def _sparse(self, location: str, x: Tensor) -> Tensor:
        if self.c["afrac"] is None or location not in self.c["afrac_loctypes"].split(","):
            return x
        kept = torch.topk(x.abs(), int(self.c["afrac"] * x.shape[-1]), dim=-1).indices
        return torch.zeros_like(x).scatter(-1, kept, x.gather(-1, kept))

    def _save(self, name: str, x: Tensor) -> Tensor:
        self.seen[name] = x
        return x
