"""What is in a folder or a state dict that is not quite the reference's, so that an error can name the way out."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from sparse_gpt.errors import InputError
from sparse_gpt.interop.openai_config import FILE as CONFIG
from sparse_gpt.io import read_json

WEIGHTS = "final_model.pt"
_HUGGING_FACE = "config.json"
_OTHER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDEX = ".index.json"  # of weights in several files: model.safetensors.index.json
_WRAPPERS = {  # prefix of tensors -> what puts it there, and what to save instead
    "_orig_mod.": ("torch.compile", "model._orig_mod.state_dict()"),
    "module.": ("DataParallel or DistributedDataParallel", "model.module.state_dict()"),
    "model.": ("a module around the model", "the state_dict() of the model inside"),
}
_MOST = 8  # names of files that a line shows
_DEEP, _MANY = 2, 500  # levels of folders that are looked into, and folders at most


def check_folder(folder: Path) -> None:
    """That a folder holds beeg_config.json and final_model.pt.

    Raises:
      InputError: if not; it names what is there instead.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}; expected a folder with {CONFIG} and {WEIGHTS}")
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); change its permissions") from error
    weights = folder / WEIGHTS
    if weights.is_dir():
        unpacked = any(weights.rglob("data.pkl"))
        kind = "the unpacked content of a torch.save file; zip it without compression" if unpacked else "another folder"
        raise InputError(f"{weights}: is a folder, with {kind}, or name the file that torch.save wrote so")
    lacking = [name for name in (CONFIG, WEIGHTS) if not (folder / name).exists()]
    if lacking:
        raise InputError(f"{folder / lacking[0]}: not found; {_instead(folder, names, lacking)}")


def check_names(names: Iterable[str], source: str) -> None:
    """That tensors are named as the reference's own, not as a wrapper around it names them. InputError if not."""
    names = list(names)
    for prefix, (wrapper, instead) in _WRAPPERS.items():
        inside = [name for name in names if name.startswith(prefix)]
        if inside:
            raise InputError(
                f"{source}: {len(inside)} of {len(names)} tensors begin with {prefix!r} ({inside[0][:100]}), "
                f"as {wrapper} names them; remove the prefix, or save {instead}"
            )


def _instead(folder: Path, names: list[str], lacking: list[str]) -> str:
    """What a folder without one of the two files holds, and the way out."""
    needed = f"expected {CONFIG} and {WEIGHTS}"
    other = [name for name in names if name.removesuffix(_INDEX) in _OTHER_WEIGHTS]
    if other:
        several = f", an index of {_parts(folder / other[0])} files" if other[0].endswith(_INDEX) else ""
        beside = f"{_HUGGING_FACE} and " if _HUGGING_FACE in names else ""
        return f"found {beside}{other[0]}{several}, Hugging Face's layout, which is not read here; {needed}"
    elsewhere = next(_below(folder, lacking[0]), None) if lacking[0] not in names else None
    if elsewhere is not None:
        return f"found {elsewhere}; name its folder if the model is there ({needed})"
    shown = ", ".join(name[:60] for name in names[:_MOST]) + (f" and {len(names) - _MOST} more" * (len(names) > _MOST))
    return f"{needed}; the folder holds {shown or 'nothing'}"


def _parts(index: Path) -> int | str:
    """How many files an index of weights names."""
    try:
        return len(set(read_json(index)["weight_map"].values()))
    except (InputError, KeyError, TypeError, AttributeError):
        return "several"


def _below(folder: Path, name: str) -> Iterator[Path]:
    """Where files of this name are in the folders below, and beside the given one. Not the whole disk is looked at."""
    seen, level = 0, [folder.parent, folder]
    for _ in range(_DEEP):
        inner: list[Path] = []
        for place in level:
            try:
                entries = sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
            except OSError:
                continue
            for entry in entries:
                if seen == _MANY:
                    return
                seen += 1
                if (entry / name).is_file():
                    yield entry / name
            inner += entries if place != folder.parent else []
        level = inner
