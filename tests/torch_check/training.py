"""The `openai_reference` recipe in PyTorch: autograd, torch.optim.Adam and torch.topk on the model of model.py."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tests import reference_run
from tests.reference_model import complete
from tests.reference_run import Record
from tests.torch_check.model import Model


def run(iterations: int) -> list[Record]:
    """The first `iterations` steps of the problem of tests/reference_run.py."""
    config, weights, batches, recipe = reference_run.problem()
    model = Model(complete(config))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.Adam(
        parameters.values(), lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps
    )
    records = []
    for i in range(iterations):
        now = reference_run.settings(recipe, i)
        loss, rms = step(model, optimizer, torch.from_numpy(batches[i]).long(), now, recipe)
        counts = {name: int(torch.count_nonzero(parameter)) for name, parameter in parameters.items()}
        densities = now.weight_density, now.embedding_density
        records.append(Record(i, loss, now.learning_rate, *densities, rms, counts))
    return records


def step(
    model: Model,
    optimizer: torch.optim.Optimizer,
    tokens: Tensor,
    now: reference_run.Settings,
    recipe: reference_run.Recipe,
) -> tuple[float, float]:
    """One step; returns the loss before it and the RMS of its gradients."""
    optimizer.param_groups[0]["lr"] = now.learning_rate
    optimizer.zero_grad()
    loss = _loss(model, tokens)
    loss.backward()
    rms = _divide_by_rms(list(model.parameters()))
    optimizer.step()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _project_and_decay(name, parameter, now, recipe)
    return float(loss.detach()), rms


def _loss(model: Model, tokens: Tensor) -> Tensor:
    logits, _ = model(tokens)
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def _divide_by_rms(parameters: list[torch.nn.Parameter]) -> float:
    squares = sum(float(p.grad.double().square().sum()) for p in parameters)
    rms = math.sqrt(squares / sum(p.numel() for p in parameters))
    for p in parameters:
        p.grad /= rms + 1e-5
    return rms


def _project_and_decay(name: str, parameter: Tensor, settings: reference_run.Settings, recipe: Any) -> None:
    keep = reference_run.keep_count(name, parameter.numel(), settings)
    if keep is not None:
        score = parameter.abs()
        axis = 0 if "c_proj" in name else 1
        if ".attn.c_" in name or ".mlp.c_" in name:
            score.scatter_(axis, torch.topk(score, recipe.min_alive, dim=axis).indices, torch.inf)
        mask = torch.zeros(parameter.numel())
        mask[torch.topk(score.flatten(), keep).indices] = 1
        parameter *= mask.view_as(parameter)
    if parameter.dim() > 1 and name != "bigram_table":
        parameter -= recipe.weight_decay * settings.learning_rate * parameter


def write_golden() -> None:
    """Stores the whole run: every loss, the rest of every step that agrees closely and of each tenth after."""
    steps = reference_run.problem()[3].steps
    rows = []
    for record in run(steps + 1):
        row = dataclasses.asdict(record)
        if record.step > reference_run.EXACT_STEPS and record.step % 10:
            row = {"step": record.step, "loss": record.loss}
        rows.append(row)
    reference_run.GOLDEN.parent.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    reference_run.GOLDEN.write_text(f"[\n{lines}\n]\n")


def check() -> None:
    """PyTorch still gives the golden run."""
    golden = json.loads(reference_run.GOLDEN.read_text())
    for record, expected in zip(run(reference_run.EXACT_STEPS + 1), golden, strict=False):
        found = dataclasses.asdict(record)
        for field, value in expected.items():
            if field in ("loss", "grad_rms"):
                np.testing.assert_allclose(found[field], value, rtol=1e-5, err_msg=f"step {record.step}: {field}")
            else:
                assert found[field] == value, f"step {record.step}: {field} is {found[field]}, was {value}"
