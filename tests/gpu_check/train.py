"""Trains preset `gpu` on a machine with one GPU, in at most nine minutes and without a network, and brings it back.

    bash tests/gpu_check/wheels.sh            once, where there is a network; then carry the folder along
    python3 tests/gpu_check/train.py          there; --out=DIR for what comes back (default: runs/gpu_train)

Its corpus of generated programs is made by all cores while the step compiles and is timed; the schedule then gets as
many steps as there is time for (train_model.py). DIR gets train.json, the parameters (params.npz), the run's config,
manifest, metrics and evaluation, and the stored model (gpu.zip), when there is time to pack it.

    python tests/gpu_check/train.py --small --seconds=120       tries all of it on a CPU with preset `tiny`
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.gpu_check import kit

SECONDS = 530.0
TO_STORE = 0.09  # of that, kept for packing
TOKENS, VOCABULARY = 120_000_000, 1024  # of the corpus; the vocabulary is that of the preset
SMALL_TOKENS, SMALL_VOCABULARY = 200_000, 512


def main(argv: Sequence[str] | None = None) -> int:
    """Corpus and training side by side, then the stored model."""
    started = time.monotonic()
    args = kit.arguments(argv, __doc__, "gpu_train", SECONDS)
    (args.out / "gpu.zip").unlink(missing_ok=True)  # of an earlier run
    budget, environment = kit.Budget(started, args.seconds), kit.environment()
    preset = "tiny" if args.small else "gpu"
    tokens, vocabulary = (SMALL_TOKENS, SMALL_VOCABULARY) if args.small else (TOKENS, VOCABULARY)
    with tempfile.TemporaryDirectory(prefix="gpu_train_") as scratch:
        corpus, workdir = Path(scratch) / "corpus", Path(scratch) / "workdir"
        sizes = [f"--tokens={tokens}", f"--vocab_size={vocabulary}", f"--parts={2 if args.small else 16}"]
        command = [sys.executable, "-m", "tests.gpu_check.corpus", f"--folder={corpus}", *sizes]
        # The GPU is for the training alone.
        maker = subprocess.Popen(
            command, cwd=kit.REPOSITORY, env=environment | {"JAX_PLATFORMS": "cpu"}, start_new_session=True
        )
        try:
            seconds = budget.left() - TO_STORE * args.seconds
            options = [f"--preset={preset}", f"--corpus={corpus}", f"--workdir={workdir}", f"--out={args.out}"]
            options += [f"--deadline={time.monotonic() + seconds - 2}"]
            trained = kit.run_part("training", ["-m", "tests.gpu_check.train_model", *options], seconds, environment)
        finally:
            kit.end(maker)
            maker.wait()
        parts = [trained]
        if trained.status == "done":
            store = ["-m", "launch.store", f"--workdir={workdir}", f"--output={args.out / 'gpu.zip'}"]
            parts.append(kit.run_part("storing", store, max(5.0, budget.left() - 2), environment))
    result = {
        "format": "sparse_gpt.gpu_train/1",
        "preset": preset,
        "parts": [{"name": p.name, "status": p.status, "seconds": p.seconds, "tail": p.tail} for p in parts],
        **{key: value for told in trained.results for key, value in told.items()},
    }
    (args.out / "train.json").write_text(json.dumps(result, indent=1) + "\n")
    print("\n" + "\n".join(f"{key}: {value}" for key, value in result.items() if key != "parts"))
    print(f"\n{time.monotonic() - started:.0f} s -> {args.out}")
    return 0 if trained.status == "done" else 1


if __name__ == "__main__":
    sys.exit(main())
