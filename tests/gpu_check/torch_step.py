"""The train step the reference's own way in PyTorch: torch.compile, torch.topk, autocast to bfloat16; a part of run.py.

The same shapes as `sparse_gpt.costs.accelerator`, with random tokens at the final density. Written from the method's
description (arXiv 2511.13653, section 2, and what the reference's train.py does in a step): every gradient divided by
the RMS of all, Adam, then the largest entries of every matrix by torch.topk, min-alive ones first, then decay. Blocks
are compiled one by one: they share one program, where a whole model would take minutes to compile.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.gpu_check.kit import tell


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of a model and of a step."""

    d_model: int
    density: float
    n_layer: int = 8
    vocab: int = 2048
    context: int = 256
    batch: int = 64
    d_head: int = 16
    fraction: float = 0.25
    min_alive: int = 4


SIZES = {"1024": Sizes(1024, 1 / 64), "2048": Sizes(2048, 1 / 256), "small": Sizes(128, 1 / 16, n_layer=2, batch=2)}


def abs_topk(x: Tensor, fraction: float) -> Tensor:
    """The largest entries of each row, by sorting as the reference does."""
    index = torch.topk(x.abs(), int(fraction * x.shape[-1]), dim=-1, sorted=False).indices
    return torch.zeros_like(x).scatter(-1, index, x.gather(-1, index))


class Block(nn.Module):
    """Attention and MLP, AbsTopK at the eight node sites."""

    def __init__(self, s: Sizes):
        super().__init__()
        self.s, self.heads = s, s.d_model // s.d_head
        self.ln_1, self.ln_2 = nn.RMSNorm(s.d_model), nn.RMSNorm(s.d_model)
        self.c_attn, self.attn_proj = nn.Linear(s.d_model, 3 * s.d_model), nn.Linear(s.d_model, s.d_model)
        self.c_fc, self.mlp_proj = nn.Linear(s.d_model, 4 * s.d_model), nn.Linear(4 * s.d_model, s.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """The residual stream after the block."""
        f = self.s.fraction
        qkv = self.c_attn(abs_topk(self.ln_1(x), f)).chunk(3, dim=2)
        q, k, v = (abs_topk(part, f).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in qkv)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + abs_topk(self.attn_proj(y), f)
        hidden = abs_topk(functional.gelu(self.c_fc(abs_topk(self.ln_2(x), f))), f)
        return x + abs_topk(self.mlp_proj(hidden), f)


class Model(nn.Module):
    """Embedding, blocks, unembedding."""

    def __init__(self, s: Sizes):
        super().__init__()
        self.wte, self.h = nn.Embedding(s.vocab, s.d_model), nn.ModuleList(Block(s) for _ in range(s.n_layer))
        self.ln_f, self.head = nn.RMSNorm(s.d_model), nn.Linear(s.d_model, s.vocab, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02 / (2 * s.n_layer) ** 0.5 if "proj" in name else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x = self.wte(tokens)
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))


@torch.no_grad()
def project(name: str, parameter: Tensor, s: Sizes) -> None:
    """All but the largest entries of a matrix to zero."""
    if parameter.dim() < 2:
        return
    score = parameter.abs()
    if "wte" not in name and not name.startswith("head"):
        axis = 0 if "proj" in name else 1
        score.scatter_(axis, torch.topk(score, s.min_alive, dim=axis).indices, torch.inf)
    index = torch.topk(score.flatten(), int(s.density * score.numel()), sorted=False).indices
    mask = torch.zeros_like(parameter).view(-1).scatter_(0, index, 1.0)
    parameter.mul_(mask.view_as(parameter))


def make_step(s: Sizes, device: str) -> tuple[Callable[[], Tensor], Callable[[], None]]:
    """(a whole step, which returns the loss; the projection alone)."""
    torch.manual_seed(0)
    model = Model(s).to(device)
    for block in model.h:
        block.compile()
    named = list(model.named_parameters())
    parameters = [parameter for _, parameter in named]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, betas=(0.9, 0.95), eps=0.1, fused=device == "cuda")
    rows = torch.randint(0, s.vocab, (s.batch, s.context + 1), device=device)
    count = sum(parameter.numel() for parameter in parameters)

    def project_all() -> None:
        for name, parameter in named:
            project(name, parameter, s)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            logits = model(rows[:, :-1])
        loss = functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        gradients = [parameter.grad for parameter in parameters]
        norms = torch.stack(torch._foreach_norm(gradients))
        torch._foreach_div_(gradients, norms.norm() / count**0.5 + 1e-5)
        optimizer.step()
        project_all()
        with torch.no_grad():
            torch._foreach_mul_([parameter for parameter in parameters if parameter.dim() > 1], 1 - 1e-4)
        return loss.detach()

    return step, project_all


def timed(function: Callable[[], object], device: str, rounds: int, seconds: float) -> float:
    """Median seconds of a call, of at most so many rounds and, past the third, of so much time."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times: list[float] = []
    while len(times) < rounds and (len(times) < 3 or sum(times) < seconds):
        wait()
        started = time.perf_counter()
        function()
        wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """One size, named on the command line."""
    s = SIZES[sys.argv[1]]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    step, project_all = make_step(s, device)
    started = time.perf_counter()
    losses = [float(step()) for _ in range(3)]
    ready = time.perf_counter() - started
    seconds = timed(step, device, 20, 8.0)
    tell(what=f"PyTorch {torch.__version__} step, d={sys.argv[1]}", ms=1e3 * seconds, compile_s=ready,
         note=f"{s.batch * s.context / seconds:,.0f} tokens/s; losses {losses[0]:.3f} to {losses[-1]:.3f}")  # fmt: skip
    tell(what=f"PyTorch projection, d={sys.argv[1]}", ms=1e3 * timed(project_all, device, 20, 4.0))
    x = torch.randn(s.batch * s.context, s.d_model, device=device, dtype=torch.bfloat16)
    select = torch.compile(lambda: abs_topk(x, s.fraction))
    select()
    tell(what=f"PyTorch AbsTopK of {len(x)} x {s.d_model}", ms=1e3 * timed(select, device, 20, 2.0))


if __name__ == "__main__":
    main()
