"""A folder in the style of Hugging Face: config.json, model.safetensors and a model card with the manifest's facts.

The tensors carry the reference's names, as in final_model.pt.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sparse_gpt import config as configs
from sparse_gpt.config import Config
from sparse_gpt.interop.torch_format import pieces
from sparse_gpt.io import Tree, replacing

_SAFETENSORS_DTYPES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.int64): "I64"}


def config_json(config: Config) -> Tree:
    """config.json: sizes under the usual names, and our whole configuration under "sparse_gpt"."""
    m = config.model
    return {
        "architectures": ["SparseGPT"],
        "model_type": "sparse_gpt",
        "vocab_size": m.vocab_size,
        "hidden_size": m.d_model,
        "num_hidden_layers": m.n_layer,
        "num_attention_heads": m.n_head,
        "head_dim": m.d_head,
        "intermediate_size": m.d_mlp,
        "max_position_embeddings": m.context,
        "tie_word_embeddings": m.tied,
        "torch_dtype": "float32",
        "sparse_gpt": configs.to_dict(config),
    }


def write_safetensors(path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a .safetensors file a piece at a time (the library wants a contiguous copy of everything at once).

    The file appears whole or not at all. Equal inputs give equal bytes.
    """
    path = Path(path)
    header: Tree = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in tensors.items():
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": _SAFETENSORS_DTYPES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts on a multiple of 8
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.writelines(pieces(array))


def model_card(name: str, config: Config, manifest: Tree) -> str:
    """README.md of an exported model, from its configuration and its manifest."""
    m, s = config.model, config.sparsity
    kept = sum(manifest.get("nonzeros", {}).values())
    facts: Tree = {
        "layers, width, heads × head width, MLP": f"{m.n_layer}, {m.d_model}, {m.n_head} × {m.d_head}, {m.d_mlp}",
        "vocabulary, context": f"{m.vocab_size}, {m.context}",
        "nonzero parameters": f"{kept:,}" if kept else None,
        "weight density": f"{s.density:.4g}",
        "AbsTopK": f"{s.activation_fraction:.4g} at {', '.join(configs.activation_sites(s))}"
        if configs.activation_sites(s)
        else "off",
        "attention sinks, bigram table": f"{_yes(m.attention_sink)}, {_yes(m.bigram)}",
        "positions": m.position,
        "training step": manifest.get("step"),
    }
    facts |= {key: manifest[key] for key in sorted(manifest) if key.endswith("sha256")}
    facts |= {key: manifest.get(key) for key in ("seeds", "git_revision", "device_kind", "device_count", "python")}
    facts["packages"] = ", ".join(f"{k} {v}" for k, v in manifest.get("packages", {}).items() if v)
    rows = "\n".join(f"| {key} | {_cell(value)} |" for key, value in facts.items() if value not in (None, "", {}))
    return f"""---
library_name: sparse_gpt
tags: [jax, weight-sparse, interpretability, circuits]
---

# {name}

A weight-sparse transformer. `final_model.pt` and `beeg_config.json` are in the format of openai/circuit_sparsity;
`model.safetensors` holds the same tensors under the same names.

```
python -m launch.import_openai --source=FOLDER --workdir=DIR
python -m launch.logits --workdir=DIR --tokens=tokens.npy --logits=logits.npy
```

| | |
|---|---|
{rows}
"""


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _cell(value: object) -> str:
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
