"""The kinds of sources that `data.sources` can name, and the class that reads each of them."""

from collections.abc import Mapping

from sparse_gpt.data.globbed import TextFiles
from sparse_gpt.data.hub import HuggingFace
from sparse_gpt.data.pinned import PinnedSource
from sparse_gpt.data.sources import Idioms, PythonSource, Source
from sparse_gpt.data.spec import SourceSpec
from sparse_gpt.data.tables import JsonLines, Parquet

SOURCES: Mapping[str, type[Source]] = {
    "idioms": Idioms,
    "pinned_source": PinnedSource,
    "python_source": PythonSource,
    "text": TextFiles,
    "jsonl": JsonLines,
    "parquet": Parquet,
    "hf": HuggingFace,
}


def open_source(spec: SourceSpec, seed: int, max_bytes: int) -> Source:
    """The source that `spec` describes.

    Args:
        spec: one item of `data.sources`.
        seed: orders files and generates idioms.
        max_bytes: limit of one document.
    """
    return SOURCES[spec.kind](spec, seed, max_bytes)
