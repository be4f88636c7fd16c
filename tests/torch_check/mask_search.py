"""The paper's mask search in PyTorch, to hold the speed and the circuits of ours against (docs/results/speed.md).

    .venv/bin/python -m launch.export_openai --workdir=RUN --output=exported
    .venv/bin/python -m launch.tasks --workdir=RUN --task=single_double_quote --pairs=1024 --export=samples.jsonl
    .venv-torch/bin/python -m tests.torch_check.mask_search exported samples.jsonl \
        RUN/circuits/single_double_quote/ablation.npz

The search of the paper's appendix at the centers of its hyperparameters: AdamW on one tau per node, Heaviside gates
with the slope of a sigmoid, all other nodes at their means, then the shortest first part of the ranking by tau that has
the target loss. It runs eagerly, computes logits at the last token alone and only of the two answers, and pads prompts
to the longest of their batch. Prints seconds, nodes, edges (before any refinement) and losses.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tests.torch_check.model import Model

CENTER = {"k_coef": 1e-4, "scale": 1e-2, "bias": 0.1, "decay": 1e-3, "rate": 3e-3, "beta2": 0.95, "warm": 0.05}
EVALUATED = 128  # pairs of each split, as preset quickstart has it
Gates = dict[str, Tensor]  # site -> (n_layer, width)


class Heaviside(torch.autograd.Function):
    """1 where tau is positive, differentiated as a sigmoid."""

    @staticmethod
    def forward(ctx: Any, tau: Tensor) -> Tensor:
        ctx.save_for_backward(tau)
        return (tau > 0).to(tau.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        rising = torch.sigmoid(ctx.saved_tensors[0])
        return gradient * rising * (1 - rising)


class GatedModel(Model):
    """The model with a gate and a value to be ablated to at every node; `margins` is what a search needs of it."""

    def __init__(self, config: dict[str, Any], values: Gates):
        super().__init__(config)
        self.values, self.gates, self.layer = values, values, 0
        self.requires_grad_(False)

    def margins(self, gates: Gates, batch: "Batch") -> Tensor:
        """(B,) logit of the answer minus that of its foil, after the last token of every prompt."""
        self.gates, t = gates, self.transformer
        x, position = t["wte"](batch.tokens), t["wpe"].weight[: batch.tokens.shape[1]]
        if self.c["d_pos_emb"] is None:
            x, position = x + position, None
        for layer, block in enumerate(t["h"]):
            x = self._sublayers(layer, block, x, position)
        last = torch.arange(len(x)), batch.lengths - 1
        rows = self.lm_head.weight[batch.answers]  # (B, 2, d_model)
        logits = torch.einsum("bd,bad->ba", t["ln_f"](x[last]), rows) + self.final_logits_bias[batch.answers]
        if self.c["enable_bigram_table"]:
            logits = logits + self.bigram_table[batch.tokens[last]].gather(1, batch.answers)
        return logits[:, 0] - logits[:, 1]

    def _sublayers(self, layer: int, block: Any, x: Tensor, position: Tensor | None) -> Tensor:
        self.layer = layer
        return super()._sublayers(layer, block, x, position)

    def _sparse(self, location: str, x: Tensor) -> Tensor:
        x = super()._sparse(location, x)
        if location not in self.gates:
            return x
        gate, value = self.gates[location][self.layer], self.values[location][self.layer]
        return value + gate * (x - value)

    def _save(self, name: str, x: Tensor) -> Tensor:
        return x

    def count_edges(self, gates: Gates) -> int:
        """Nonzero weights of the blocks between open nodes."""
        total = 0.0
        for layer, block in enumerate(self.transformer["h"]):
            here = {site: gate[layer] for site, gate in gates.items()}
            joined = [
                *(
                    (part, "attn_in", f"attn_{n}")
                    for n, part in zip("qkv", block.attn.c_attn.weight.chunk(3), strict=True)
                ),
                (block.attn.c_proj.weight, "attn_v", "attn_out"),
                (block.mlp["c_fc"].weight, "mlp_in", "mlp_neuron"),
                (block.mlp["c_proj"].weight, "mlp_neuron", "mlp_out"),
            ]
            total += sum(float(here[after] @ (weight != 0).float() @ here[before]) for weight, before, after in joined)
        return round(total)


class Batch:
    """Prompts padded to the longest, both answers' tokens (right one first)."""

    def __init__(self, samples: Sequence[dict[str, Any]]):
        self.lengths = torch.tensor([len(sample["tokens"]) for sample in samples])
        self.tokens = torch.zeros(len(samples), int(self.lengths.max()), dtype=torch.long)
        for row, sample in zip(self.tokens, samples, strict=True):
            row[: len(sample["tokens"])] = torch.tensor(sample["tokens"])
        self.answers = torch.tensor([[sample["answer_id"], sample["foil_id"]] for sample in samples])


def task_loss(margins: Tensor) -> Tensor:
    """Cross-entropy between answer and foil, in nats."""
    return functional.softplus(-margins).mean()


def search(
    model: GatedModel, pairs: Sequence[Sequence[dict[str, Any]]], steps: int, size: int, k_coef: float, seed: int
) -> tuple[Gates, Gates]:
    """tau after `steps` steps of `size` pairs each, and the running mean of the task loss's slope by each gate."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    tau = {
        site: torch.nn.Parameter((CENTER["bias"] + CENTER["scale"] * torch.randn_like(value)).clamp(-1, 1))
        for site, value in model.values.items()
    }
    slopes = {site: torch.zeros_like(value) for site, value in tau.items()}
    optimizer = torch.optim.AdamW(tau.values(), betas=(0.9, CENTER["beta2"]), weight_decay=CENTER["decay"])
    warm = max(1.0, CENTER["warm"] * steps)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = CENTER["rate"] * min((step + 1) / warm, (steps - step) / (steps - warm))
        batch = Batch([sample for pair in draw.sample(pairs, min(size, len(pairs))) for sample in pair])
        gates = {site: Heaviside.apply(value) for site, value in tau.items()}
        for gate in gates.values():
            gate.retain_grad()
        optimizer.zero_grad()
        opened = torch.stack([gate.sum() for gate in gates.values()]).sum()
        loss = task_loss(model.margins(gates, batch))
        (loss + k_coef * opened).backward()
        torch.nn.utils.clip_grad_norm_(tau.values(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for site, value in tau.items():
                value.clamp_(-1, 1)
                slopes[site].lerp_(gates[site].grad - k_coef, 0.05)
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: task loss {float(loss.detach()):.3f}, {int(opened)} nodes", flush=True)
    return {site: value.detach() for site, value in tau.items()}, slopes


def first_part(scores: Gates, ties: Gates, count: int) -> Gates:
    """Gates of the `count` nodes of highest score; among equals those with the most negative slope."""
    flat, slopes = (np.concatenate([x.flatten().numpy() for x in each.values()]) for each in (scores, ties))
    gates, chosen = np.zeros(len(flat), np.float32), np.lexsort((slopes, -flat))[:count]
    gates[chosen] = 1
    ends = np.cumsum([value.numel() for value in scores.values()])[:-1]
    parts = np.split(gates, ends)
    return {
        site: torch.from_numpy(part).view_as(value) for (site, value), part in zip(scores.items(), parts, strict=True)
    }


def smallest(loss_of: Callable[[int], float], most: int, target: float) -> int | None:
    """Bisects for the smallest count with a loss of at most the target; None where `most` has more."""
    if loss_of(most) > target:
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if loss_of(middle) <= target else (middle, high)
    return high


def main() -> None:
    """Searches, and prints what was found and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exported", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("ablation", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--k_coef", type=float, default=CENTER["k_coef"])
    parser.add_argument("--target", type=float, default=0.15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    values = {site: torch.from_numpy(value) for site, value in np.load(options.ablation).items()}
    model = GatedModel(json.loads((options.exported / "beeg_config.json").read_text()), values)
    model.load_state_dict(torch.load(options.exported / "final_model.pt", weights_only=True), strict=False)
    samples = [json.loads(line) for line in options.samples.read_text().splitlines()]
    main_family = [sample for sample in samples if sample["family"] == "main"]
    split = {name: [s for s in main_family if s["split"] == name] for name in ("train", "validation", "heldout")}
    pairs = list(zip(split["train"][::2], split["train"][1::2], strict=True))
    started = time.perf_counter()
    tau, slopes = search(model, pairs, options.steps, options.pairs, options.k_coef, options.seed)
    searched = time.perf_counter() - started
    few = {name: found[: 2 * EVALUATED] for name, found in split.items()}
    selection, heldout = Batch(few["validation"] + few["train"]), Batch(few["heldout"])

    def loss_of(count: int, batch: Batch = selection) -> float:
        with torch.no_grad():
            return float(task_loss(model.margins(first_part(tau, slopes, count), batch)))

    everything = sum(value.numel() for value in tau.values())
    print(f"the whole model: task loss {loss_of(everything):.3f}, held-out {loss_of(everything, heldout):.3f}")
    count = smallest(loss_of, everything, options.target)
    seconds = time.perf_counter() - started
    each = 1000 * searched / options.steps
    print(f"{options.steps} steps in {searched:.1f} s, {each:.0f} ms each; {seconds:.1f} s in all")
    if count is None:
        print(f"no first part of the ranking has a loss of {options.target:g}")
        return
    edges = model.count_edges(first_part(tau, slopes, count))
    print(f"{count} nodes, {edges} edges: task loss {loss_of(count):.3f}, held-out {loss_of(count, heldout):.3f}")


if __name__ == "__main__":
    main()
