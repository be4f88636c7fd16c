"""Makes the list of files that source `pinned_source` reads anew, after a pin in requirements.txt has changed.

python -m tests.pin_sources [--wheels=FOLDER]

It downloads the wheels of the packages for every supported Python and platform (some 200 MB; those that FOLDER holds
already are not downloaded again), lists the Python files that are equal in all of them, and says what has changed.
Afterwards the expected hashes of the corpora change too: `python -m launch.reproduce --experiment=hashes`.
"""

import argparse
import collections
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from sparse_gpt.data.pinned import LIST, PinnedFile, format_list, read_list

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
# Direct requirements, so that every installation has them; permissively licensed; code that people wrote
# and that has many files. NumPy and Matplotlib are compiled, but their Python files are the same.
PACKAGES = (
    *("absl-py", "flax", "fsspec", "jax", "matplotlib", "ml_collections"),
    *("numpy", "optax", "optuna", "orbax-checkpoint", "tensorboardX"),
)
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = (
    ("manylinux_2_17_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64"),
    ("manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64"),
    ("macosx_11_0_arm64", "macosx_14_0_arm64"),
)
# Tests, which packagers like to strip; generated code; tables of numbers.
LEFT_OUT = re.compile(
    r"(^|/)(_?tests?|testing|_?test_utils?|internal_test_util|distutils|_cm|_cm_listed|_mathtext_data|_color_data)(/|\.py$)"
    r"|(^|/)(test_[^/]*|conftest|_?version|__config__)\.py$|_(test|pb2|pb2_grpc)\.py$|\.data/"
)
SIZES = range(400, 64_001)  # bytes: not files that only import; many documents of usual length, not a few huge ones


def pinned_versions() -> dict[str, str]:
    """Package -> version, of requirements.txt."""
    lines = REQUIREMENTS.read_text("utf-8").splitlines()
    return dict(line.strip().split("==") for line in lines if "==" in line and not line.startswith("#"))


def wheels(package: str, version: str, folder: Path) -> list[Path]:
    """The wheels of a package for every supported Python and platform: one if it is the same for all."""
    found: set[Path] = set()
    for python in PYTHONS:
        for platform in PLATFORMS:
            target = folder / f"{package}-{version}-{python}-{platform[-1]}"
            if not list(target.glob("*.whl")):
                command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
                command += [f"--python-version={python}", *(f"--platform={name}" for name in platform)]
                subprocess.run([*command, f"--dest={target}", f"{package}=={version}"], check=True)
            found.update(target.glob("*.whl"))
            if any(path.name.endswith("-none-any.whl") for path in found):
                return sorted(found)
    return sorted(found)


def equal_files(package: str, version: str, archives: list[Path]) -> list[PinnedFile]:
    """The Python files that are in all the archives with the same bytes."""
    seen: collections.Counter[PinnedFile] = collections.Counter()
    for archive in archives:
        with zipfile.ZipFile(archive) as wheel:
            for entry in wheel.infolist():
                name = entry.filename
                if name.endswith(".py") and entry.file_size in SIZES and not LEFT_OUT.search(name):
                    digest = hashlib.sha256(wheel.read(entry)).hexdigest()
                    seen[PinnedFile(name, entry.file_size, digest, package, version)] += 1
    return sorted(file for file, count in seen.items() if count == len(archives))


def main() -> None:
    """Writes the list and prints how it differs from the one that was there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, help="where the wheels are kept; default: a temporary folder")
    given = parser.parse_args().wheels
    before = set(read_list()) if LIST.is_file() else set()
    with tempfile.TemporaryDirectory() as temporary:
        files = []
        for package in PACKAGES:
            version = pinned_versions()[package]
            archives = wheels(package, version, given or Path(temporary))
            mine = equal_files(package, version, archives)
            size = sum(file.size for file in mine)
            print(f"{package:20}{version:12}{len(archives):3} wheels{len(mine):6} files{size / 1e6:8.2f} MB")
            files += mine
    LIST.write_text(format_list(files), "utf-8")
    print(f"{LIST}: {len(files)} files, {sum(file.size for file in files) / 1e6:.2f} MB of Python source")
    print(f"{len(set(files) - before)} added or changed, {len(before - set(files))} removed or changed")


if __name__ == "__main__":
    main()
