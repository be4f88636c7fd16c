"""Sizes of the models that launch.benchmark measures."""

from collections.abc import Mapping

SIZES: Mapping[str, Mapping[str, object]] = {
    "small": {"model.d_model": 128, "model.n_layer": 2, "model.n_head": 8, "model.d_mlp": 512, "model.vocab_size": 512,
              "model.context": 128, "train.batch_size": 32},
    "medium": {"model.d_model": 256, "model.n_layer": 4, "model.n_head": 16, "model.d_mlp": 1024,
               "model.vocab_size": 2048, "model.context": 256, "train.batch_size": 16},
}  # fmt: skip
