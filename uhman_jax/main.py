"""Trains and evaluates hashtag recommendation: prepares what is missing, then prints a table.

    python -m uhman_jax.main --config=configs/natural.py [--workdir=DIR] [--config.FIELD=VALUE]

Every field of uhman_jax/config.py can be set, e.g. --config.train.learning_rate=0.05, or
--config.data.root=FOLDER for a folder with a videos.csv. Whatever an earlier start has finished is
reused. Exit status: 0 done; 2 something to mend, told in one sentence; 75 stopped by Ctrl-C or
SIGTERM, and the same command continues from there; 141 nobody reads the output any more.

The folders configs and tools (importers, inspect_run, export, launchers) are no part of an
installation: start `python -m tools.NAME` in a clone of the source.
"""

import dataclasses
import gc
import os
import pathlib
import re
import runpy
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from uhman_jax import stop, storage, streams
from uhman_jax.cluster import Cluster
from uhman_jax.config import Config, flag_rule, flatten, nearest_field
from uhman_jax.config_checks import validate
from uhman_jax.errors import UserError, only_flags, user_message

MODES = ("train_and_evaluate", "evaluate")
_ALLOCATIONS = 20_000  # between collections: with 700 a tenth of a start goes into collecting
_HELP = ("-h", "-help", "--help", "--helpfull", "--helpshort")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What the command line says."""

    config: Config
    workdir: pathlib.Path
    mode: str
    cluster: Cluster


def main(argv: Sequence[str]) -> int:
    """Runs a command line (without the program's name); returns the exit status."""
    if set(argv) & set(_HELP):
        print(f"{__doc__}\n{_flags().get_help()}")
        return 0
    gc.set_threshold(_ALLOCATIONS)
    arguments = None
    try:
        arguments = parse(argv)
        with stop.exit_on_signal():
            from uhman_jax import run  # everything heavy comes in here

            finished = run.run(
                arguments.config, arguments.workdir, arguments.mode, cluster=arguments.cluster
            )
    except Exception as error:
        if not (told := user_message(error)):
            raise
        print(f"error: {told}", file=sys.stderr, flush=True)
        if arguments and arguments.cluster.coordinator:
            os._exit(streams.WRONG)  # else the others would be waited for, which wait for this one
        return streams.WRONG
    if not finished:
        print(stop.MESSAGE, file=sys.stderr)
    return 0 if finished else stop.STOPPED


def parse(argv: Sequence[str]) -> Arguments:
    """Reads and checks the command line.

    Raises:
        UserError: a flag, a field, a value or the config file is wrong.
    """
    path, argv = _config_path(argv)
    _check_fields(argv)
    loaded = _load_config(path)
    try:
        values = _flags(loaded, argv)
        rest = values(["main", *argv])
    except flags.Error as error:
        raise UserError(_flag_message(str(error))) from error
    only_flags(rest)
    config: Config = values["config"].value  # type: ignore[bad-assignment]
    validate(config)
    workdir = str(values["workdir"].value) or os.path.join("runs", config.name)
    given: dict[str, Any] = {
        field.name: values[field.name].value for field in dataclasses.fields(Cluster)
    }
    cluster = Cluster(**given)
    cluster.check()
    return Arguments(config, storage.path(workdir), str(values["mode"].value), cluster)


def _flags(config: Config | None = None, argv: Sequence[str] = ()) -> flags.FlagValues:
    """The flags; with a config, one for each of its fields instead of one for its file."""
    values = flags.FlagValues()
    if config is None:
        text = "file whose get_config() returns the settings"
        flags.DEFINE_string("config", None, text, flag_values=values)
    else:
        config_flags.DEFINE_config_dataclass(
            "config", config, flag_values=values, sys_argv=["main", *argv]
        )
    flags.DEFINE_string(
        "workdir", "", "run directory; runs/<config name> if empty", flag_values=values
    )
    flags.DEFINE_enum(
        "mode", MODES[0], MODES, "evaluate: of the newest checkpoint", flag_values=values
    )
    text = "devices that share a batch x devices that share the hashtags, e.g. 4x2"
    flags.DEFINE_string("mesh", "", text, flag_values=values)
    text = "HOST:PORT of process 0 of several; auto: as a TPU slice or SLURM says"
    flags.DEFINE_string("coordinator", "", text, flag_values=values)
    flags.DEFINE_integer("num_processes", 1, "that train this run together", flag_values=values)
    flags.DEFINE_integer("process", 0, "which of them this is", flag_values=values)
    return values


def _config_path(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Path of the config file, which must exist, and the other arguments."""
    path, rest, after = None, [], iter(argv)
    for arg in after:
        if arg in ("--config", "-config"):
            path = next(after, "")
        elif match := re.match(r"--?config=(.*)", arg, re.DOTALL):
            path = match[1]
        else:
            rest.append(arg)
    if path is None or not os.path.isfile(path):
        given = "none" if path is None else repr(path)
        raise UserError(f"--config must name a file, got {given}; {_known_configs()}")
    return path, rest


def _known_configs() -> str:
    """Where config files are, for a message."""
    source = pathlib.Path(__file__).parents[1]
    for folder in (pathlib.Path(), *([source] if (source / "pyproject.toml").exists() else [])):
        if found := sorted(map(str, folder.glob("configs/*.py"))):
            return f"there are {', '.join(found)}"
    return (
        "those of the project are in the folder configs of its source, beside tools, which an "
        "installation leaves out: work in a clone, or give the path of one's file"
    )


def _check_fields(argv: Sequence[str]) -> None:
    """Raises UserError for a setting that does not exist; names the nearest one that does."""
    known = flatten(Config())
    for arg in argv:
        match = re.match(r"--?(no)?config\.([^=]*)", arg)
        if match and match[2] not in known:
            inside = [path for path in known if path.startswith(match[2] + ".")]
            meant = inside[0] if inside else nearest_field(match[2])
            raise UserError(f"no setting is called {match[2]!r}; did you mean --config.{meant}?")


def _load_config(path: str) -> Config:
    """Runs `get_config()` of a file, which may import others of its folder: `configs.NAME`."""
    source = str(pathlib.Path(path).resolve().parents[1])
    sys.path.append(source)
    try:
        config = runpy.run_path(path)["get_config"]()
    except Exception as error:  # whatever the code of a config file may raise
        what = f"{type(error).__name__}: {error}"
        raise UserError(
            f"--config must name a Python file with a get_config() that returns a Config, but "
            f"running {path} ended with {what}; mend the file"
        ) from error
    finally:
        sys.path.remove(source)
    if not isinstance(config, Config):
        raise UserError(
            f"get_config() must return a uhman_jax.config.Config, got {type(config).__name__} in "
            f"{path}; see configs/natural.py"
        )
    return config


def _flag_message(message: str) -> str:
    """The message of the flags library; for a setting, the rule, the value and an example."""
    match = re.match(r"flag --config\.([\w.]+)=(.*?): ", message, re.DOTALL)
    if match and match[1] in flatten(Config()):
        rule, example = flag_rule(match[1])
        return f"{rule}, got {match[2]!r}; write e.g. {example}"
    return message.rstrip(".") + "; see --help"


if __name__ == "__main__":
    with streams.guarded():
        sys.exit(main(sys.argv[1:]))
