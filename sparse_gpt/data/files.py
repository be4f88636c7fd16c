"""Fingerprints of files; and by their old names, what sparse_gpt/io.py has for reading and writing them."""

import hashlib
from pathlib import Path

from sparse_gpt.io import disk_errors, write_atomic, write_json

__all__ = ["disk_errors", "sha256_file", "write_atomic", "write_json"]


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
