"""Settings of every test: CPU only, eight devices, no silent promotion of ranks or dtypes, a compilation cache."""

import contextlib
import functools
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sparse_gpt.compilation_cache import processor, release_programs

REPOSITORY = Path(__file__).resolve().parent.parent

# Bytecode is kept even where the machine says otherwise: assertions are rewritten and modules compiled once, not by
# every worker and every process that a test starts.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# In the environment, so that scripts which tests start as processes of their own share them. JAX reads them on import.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".cache" / "jax" / processor()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # small programs are many
# XLA's own passes run as ever; only LLVM does less: a third of the time to compile. Set it to 0 to compile all tests'
# programs as users' are. Those of tests and modules marked `optimized` always are: they are about bits, or run longer
# than that saves.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax  # noqa: E402 (after the variables above)
import optax  # noqa: E402
import pytest  # noqa: E402
from jax._src import compiler  # noqa: E402

from tests.budget import (  # noqa: E402
    pytest_collection_modifyitems,
    pytest_runtest_call,
    pytest_runtest_makereport,
    pytest_runtest_setup,
)

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
]

# Not in the environment: a script under test runs as its user would run it.
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def _allow_promotion(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets one library function promote dtypes; everything else stays strict."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return wrapped


# Without LLVM's optimization two more of XLA's choices only cost time: its newer emitters of fusions (with it they are
# the faster ones, to compile too), and modules in parts to be compiled side by side. JAX passes options to a compiler
# from `jax.jit` alone, so its own function is wrapped; where it has another form, programs are compiled as before.
QUICKER = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
_get_compile_options = compiler.get_compile_options


@functools.wraps(_get_compile_options)
def _quick_compile_options(*args: Any, **kwargs: Any) -> Any:
    """JAX's options, and QUICKER's unless programs are compiled as for users."""
    if jax.config.read("jax_disable_most_optimizations") and "env_options_overrides" in kwargs:
        kwargs["env_options_overrides"] = {**QUICKER, **(kwargs["env_options_overrides"] or {})}
    return _get_compile_options(*args, **kwargs)


compiler.get_compile_options = _quick_compile_options


# Adam raises a float decay to an integer step count.
optax.tree.bias_correction = _allow_promotion(optax.tree.bias_correction)


@contextlib.contextmanager
def _optimized(node: pytest.Item | pytest.Collector) -> Iterator[None]:
    """Full optimization for what has the mark `optimized`, in this process and in those it starts."""
    if node.get_closest_marker("optimized") is None:
        yield
        return
    before = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = before
    jax.config.update("jax_disable_most_optimizations", before.lower() not in ("0", "false", ""))


@pytest.fixture(scope="module", autouse=True)
def _optimized_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """So that fixtures of a marked module are optimized, too."""
    with _optimized(request.node):
        yield


@pytest.fixture(autouse=True)
def _optimized_test(request: pytest.FixtureRequest) -> Iterator[None]:
    with _optimized(request.node):
        yield


@pytest.fixture(scope="module", autouse=True)
def _few_programs() -> Iterator[None]:
    """Thousands of programs are compiled in one process; those of finished modules are not called again."""
    yield
    release_programs()


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A workdir that does not exist yet, with a space in its path."""
    return tmp_path / "some runs" / "workdir"


@pytest.fixture(scope="session")
def launch() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`launch("train", "--workdir=…")` runs `python -m launch.train` as a user would, with its output captured."""

    def run(
        name: str, *args: str, cwd: Path = REPOSITORY, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"launch.{name}", *args]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=600)

    return run


@pytest.fixture(scope="session")
def tokenizer_of_1024() -> Any:
    """As the presets' smallest tokenizers, of the texts that they are made of."""
    from sparse_gpt.data import idioms
    from sparse_gpt.data.tokenizer import train_tokenizer

    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-c]*.py"))
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in library]
    return train_tokenizer([*texts, *idioms.documents(0, 0, 2500)], 1024)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser's page (`browser.Page`) of 1300 by 900 points, one for a module."""
    from tests.browser import open_page

    with open_page(tmp_path_factory.mktemp("browser")) as opened:
        opened.resize(1300, 900)
        yield opened
