"""What every launch script shares: flags, the path from flags to a frozen Config, and how errors end a run.

Exit codes: 0 success, 2 bad input (one line on stderr), 75 interrupted and saved (run again to resume), 3 a check
of `reproduce` missed, 1 a defect.
"""

import contextlib
import dataclasses
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

import sparse_gpt
from sparse_gpt import compilation_cache, interruption, locks, paths, presets, surroundings
from sparse_gpt import config as configs
from sparse_gpt.errors import InputError
from sparse_gpt.io import Tree
from sparse_gpt.tasks import TaskError

BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, interruption.EXIT_CODE, 141
_PLAINLY = {
    r"flag --(\S+)=None: .* must have a value other than None\.": r"--\1: missing; --help says what it takes;",
    r"invalid literal for int\(\) with base 10: .*": "must be a whole number",
    r"could not convert string to float: .*": "must be a number",
    r"\('Non-boolean argument to boolean flag', .*\)": "must be true or false",
}
_held = contextlib.ExitStack()  # what a script holds until it ends


def define_workdir(required: bool = True) -> None:
    """--workdir."""
    define_path(
        "workdir", "Folder that holds the run: configuration, checkpoints, metrics, circuits, report.", required
    )


def define_path(name: str, text: str, required: bool = False) -> None:
    """A flag whose value must be possible as a path."""
    flags.DEFINE(_PathParser(), name, None, text)
    if required:
        flags.mark_flag_as_required(name)


class _PathParser(flags.ArgumentParser[str]):
    """Refuses what can be no path, in the words of `paths.problem`."""

    def parse(self, argument: str) -> str:
        if found := paths.problem(argument):
            raise ValueError(found)
        return argument

    def flag_type(self) -> str:
        return "path"


def define_config() -> None:
    """--preset and --config.group.field overrides."""
    flags.DEFINE_string("preset", None, f"Named configuration to start from: {', '.join(presets.PRESETS)}.")
    _check_names(sys.argv[1:])  # before the next one reads them
    config_flags.DEFINE_config_dict(
        "config",
        ConfigDict({group: _as_flags(held) for group, held in dataclasses.asdict(configs.Config()).items()}),
        configs.help_text(),
    )


def _as_flags(group: Mapping[str, object]) -> Tree:
    """A group with lists as the texts that flags take, and `configs.replace` reads."""
    return {name: configs.as_flag(value) for name, value in group.items()}


def define_distributed() -> None:
    """--distributed and what it takes outside known clusters."""
    flags.DEFINE_bool(
        "distributed", False, "One of several processes; on Cloud TPU, GKE and Slurm that is all they need."
    )
    flags.DEFINE_string("coordinator", None, "With --distributed elsewhere: HOST:PORT of process 0 ...")
    flags.DEFINE_integer("process_count", None, "... how many processes there are ...")
    flags.DEFINE_integer("process_index", None, "... and which one this is, from 0.")
    flags.DEFINE_integer("wait", 300, "Seconds to wait for the other processes.", lower_bound=1)


def join_processes() -> None:
    """What --distributed asks for; its companions without it are a mistake."""
    f = flags.FLAGS
    given = [f"--{name}" for name in ("coordinator", "process_count", "process_index") if f[name].value is not None]
    if f.distributed:
        from sparse_gpt.training import distributed  # here, because not every script uses JAX

        distributed.initialize(f.coordinator, f.process_count, f.process_index, f.wait)
    elif given:
        raise InputError(f"{', '.join(given)}: only together with --distributed")


def _check_names(arguments: list[str]) -> None:
    """Ends the run when a --config.… argument names no field; ml_collections would end it with a traceback."""
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("-") or not name.startswith("config."):
            continue
        group, _, field = name.removeprefix("config.").partition(".")
        known = configs.to_dict(configs.Config()).get(group, {})
        if field not in known and field.removeprefix("no") not in known:
            _fail(f"--{name}: no such field; {group} has {', '.join(sorted(known)) or 'none'}")


def workdir() -> Path:
    """The --workdir flag as an absolute path."""
    return Path(flags.FLAGS.workdir).expanduser().absolute()


def new_workdir() -> Path:
    """The --workdir flag; InputError unless it is a folder that can be written to, or can be made."""
    return paths.writable_folder("workdir", workdir())


def existing_workdir(written: bool = False) -> Path:
    """The --workdir flag; InputError unless the folder is there, and can be `written` to if it is to be."""
    folder = new_workdir() if written else workdir()
    if not folder.is_dir():
        name = flags.FLAGS.workdir
        if name in stored_names() and "init_from" in flags.FLAGS:
            raise InputError(f"--workdir={name}: no such folder; a stored model: --init_from={name} --workdir=NEW")
        raise InputError(f"--workdir={name}: no such folder; train or import a model into it first")
    return folder


def stored_names() -> list[str]:
    """Names of the models that are in this package, without JAX, which sparse_gpt.stored imports."""
    return sorted(path.stem for path in (Path(sparse_gpt.__file__).parent / "stored").glob("*.zip"))


def hold(folder: Path) -> Path:
    """Takes the lock of a folder that this script writes to, until it ends, and returns the folder. Process 0 does so
    for all that have joined. InputError if another process holds it."""
    if "distributed" in flags.FLAGS:
        from sparse_gpt.training import distributed  # here, because not every script uses JAX

        _held.enter_context(distributed.writing(folder))
    else:
        _held.enter_context(locks.writing(folder))
    return folder


def check_overrides(groups: tuple[str, ...]) -> None:
    """InputError for a --config.… flag outside `groups`: the rest belongs to the trained model."""
    for name in overrides():
        if name.partition(".")[0] not in groups:
            raise InputError(f"--config.{name}: fixed by the trained model; here only {', '.join(groups)} can change")


def overrides() -> Mapping[str, object]:
    """Dotted field -> value for every --config.… flag on the command line."""
    return config_flags.get_override_values(flags.FLAGS["config"])


def new_config(default: str = "quickstart") -> configs.Config:
    """Preset (or the default one) plus overrides, validated."""
    paths.check_config(overrides())
    return configs.validate(configs.replace(presets.preset(flags.FLAGS.preset or default), overrides()))


def stored_config(folder: Path, groups: tuple[str, ...]) -> configs.Config:
    """The workdir's configuration with overrides, which may touch only `groups`: the rest belongs to the model."""
    check_overrides(groups)
    paths.check_config(overrides())
    return configs.validate(configs.replace(configs.load(folder), overrides()))


def any_config(groups: tuple[str, ...]) -> configs.Config:
    """The configuration of the model in the workdir, of which `groups` may change; that of the flags where a preset is
    named, or the workdir has no model."""
    if not flags.FLAGS.preset and flags.FLAGS.workdir and (workdir() / "config.json").is_file():
        return stored_config(workdir(), groups)
    return new_config()


def run(define_flags: Callable[[], None], main: Callable[[], int | None]) -> None:
    """Defines and parses flags, runs `main`, and turns bad input into one line and exit code 2.

    `main` checks what can be checked quickly, then imports launch.jobs.NAME and does the work: `--help` and mistakes in
    flags are answered before JAX is imported. The flags are gone afterwards, so that one process can run many scripts.
    """
    surroundings.settle()
    compilation_cache.keep_programs()
    logging.set_verbosity(logging.WARNING)
    before, own = set(flags.FLAGS), set()
    try:
        try:
            define_flags()
        finally:
            own = set(flags.FLAGS) - before
        for flag in own:  # so that --help shows those that another module defines, too
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[flag])
        with interruption.installed():
            app.run(lambda argv: _guarded(main), flags_parser=_parse)
    finally:
        for name in set(flags.FLAGS):  # not what imported packages have defined meanwhile
            if name in own or name.startswith("config."):
                delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()


def _parse(argv: list[str]) -> list[str]:
    wants_help = any(arg.split("=")[0].lstrip("-") in ("help", "helpshort", "helpfull", "h", "?") for arg in argv[1:])
    try:
        rest: list[str] = flags.FLAGS(argv)
    except SystemExit:
        sys.exit(0 if wants_help else BAD_INPUT)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        _fail(_plain(str(error)) or type(error).__name__)
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}; every option is a --flag")
    return rest


def _plain(message: str) -> str:
    """What absl says of a flag, without words of Python's."""
    for pattern, words in _PLAINLY.items():
        message = re.sub(pattern, words, message)
    return message.rstrip("; ")


def _guarded(main: Callable[[], int | None]) -> None:
    try:
        with interruption.raising(), _held:
            code = main()
        sys.stdout.flush()
    except (InputError, TaskError) as error:
        _fail(str(error))
    except BrokenPipeError:
        if interruption.requested():  # a closed terminal, when one tells that all is saved
            _interrupted()
        surroundings.silence(sys.stdout)
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        if interruption.requested():
            _interrupted()
        if fault := surroundings.disk_fault(error):
            _fail(fault)
        raise
    except KeyboardInterrupt:
        _interrupted()
    except Exception as error:
        if fault := surroundings.fault(error):
            _fail(fault)
        raise
    sys.exit(code or 0)


def _interrupted() -> NoReturn:
    try:
        print(interruption.LINE, file=sys.stderr, flush=True)
        sys.stdout.flush()
    except OSError:  # nobody listens any more; what is left in the buffers must not fail again
        surroundings.silence(sys.stdout, sys.stderr)
    sys.exit(INTERRUPTED)


def _fail(message: str) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(BAD_INPUT)
