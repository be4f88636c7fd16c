"""Values that no field of a configuration should stumble over, for tests and for fuzzing.

Each is given to every field of every group. A field either takes it, and then holds something that is finite and
within its declared range, or refuses it with one line.
"""

import math
from typing import Any, NamedTuple


class Case(NamedTuple):
    """A value and a name for it that can be printed."""

    name: str
    value: Any


VALUES = (
    Case("nan", math.nan),
    Case("infinity", math.inf),
    Case("minus infinity", -math.inf),
    Case("denormal", 1e-320),
    Case("float32 denormal", 1e-40),
    Case("float32 overflow", 1e39),
    Case("largest float", 1e308),
    Case("minus one", -1),
    Case("zero", 0),
    Case("minus zero", -0.0),
    Case("beyond int64", 2**63),
    Case("beyond float64", 10**400),
    Case("unprintable integer", 10**5000),
    Case("a fraction", 1.5),
    Case("true", True),
    Case("none", None),
    Case("empty text", ""),
    Case("zero byte", "\x00"),
    Case("line break", "a\nb"),
    Case("markup", "<b>"),
    Case("text of a nan", "nan"),
    Case("list of numbers as text", "1e-4,nan,inf"),
    Case("negative list as text", "-1"),
    Case("long text", "x" * 1_000_000),
    Case("half of a surrogate pair", "\ud800"),
    Case("not ASCII", "é–𝔸"),
    Case("bytes", b"\xff"),
    Case("list", [1]),
    Case("nested list", [[[[1]]]]),
    Case("object", {"a": 1}),
)

TREES = (
    Case("none", None),
    Case("list", []),
    Case("text", "model"),
    Case("number", 1),
    Case("group is a list", {"model": []}),
    Case("group is none", {"model": None}),
    Case("group is text", {"model": "n_layer"}),
    Case("unknown group", {"modle": {"n_layer": 2}}),
    Case("unknown empty field", {"model": {"": 2}}),
    Case("unknown field", {"model": {"depth": 2}}),
    Case("attribute of a class", {"__class__": {"__name__": "x"}}),
    Case("field with a dot", {"model": {"n_layer.x": 2}}),
    Case("field with a line break", {"model": {"n\nlayer": 2}}),
    Case("long field", {"model": {"x" * 100_000: 2}}),
    Case("group is a number", {2: {"n_layer": 2}}),
    Case("position without width", {"model": {"position": "concat"}}),
    Case("bias of an RMSNorm", {"model": {"norm_bias": True}}),
)
"""What a file may hold instead of a configuration."""
