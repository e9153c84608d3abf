"""Trains and evaluates a hashtag recommender: creates missing data, then prints a table of scores.

    python -m uhman_jax.main --config=configs/natural.py [--workdir=DIR] [--config.FIELD=VALUE]

Every field of uhman_jax/config.py can be set, e.g. --config.train.learning_rate=0.05, or
--config.data.root=FOLDER for a folder with a videos.csv. The results of an earlier start are
reused. Exit status: 0 finished; 2 a user's mistake, reported in one sentence; 75 stopped by Ctrl-C
or SIGTERM (the same command continues the run); 141 the output was closed by its reader.

The folders configs and tools (importers, inspect_run, export, launchers) are not installed: run
`python -m tools.NAME` in a clone of the source.
"""

import dataclasses
import functools
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

from uhman_jax.config import Config, flatten
from uhman_jax.config_checks import flag_rule, nearest_field, validate
from uhman_jax.runtime import signals, storage, streams
from uhman_jax.runtime.errors import UserError, only_flags, user_message
from uhman_jax.runtime.processes import Cluster

MODES = ("train_and_evaluate", "evaluate")
_ALLOCATIONS = 20_000  # between garbage collections; with the default 700 a start takes 10 % longer
_HELP = ("-h", "-help", "--help", "--helpfull", "--helpshort")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The parsed command line."""

    config: Config
    workdir: pathlib.Path
    mode: str
    cluster: Cluster


def main(argv: Sequence[str]) -> int:
    """Runs a command line (without the program name) and returns the exit status."""
    if set(argv) & set(_HELP):
        print(f"{__doc__}\n{_flags().get_help()}")
        return 0
    gc.set_threshold(_ALLOCATIONS)
    arguments = None
    try:
        arguments = parse(argv)
        with signals.exit_on_signal():
            from uhman_jax import run  # imports slow libraries

            finished = run.run(
                arguments.config, arguments.workdir, arguments.mode, cluster=arguments.cluster
            )
    except Exception as error:
        if not (message := user_message(error)):
            raise
        print(f"error: {message}", file=sys.stderr, flush=True)
        if arguments and arguments.cluster.coordinator:
            # A normal exit waits for the other processes, which wait for this one.
            os._exit(streams.WRONG)
        return streams.WRONG
    if not finished:
        print(signals.MESSAGE, file=sys.stderr)
    return 0 if finished else signals.STOPPED


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
    """Defines the flags; --config is the file, or one flag per field if a config is given."""
    values = flags.FlagValues()
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    integer = functools.partial(flags.DEFINE_integer, flag_values=values)
    if config is None:
        string("config", None, "file whose get_config() returns the settings")
    else:
        config_flags.DEFINE_config_dataclass(
            "config", config, flag_values=values, sys_argv=["main", *argv]
        )
    string("workdir", "", "run directory; runs/<config name> if empty")
    text = "evaluate: only evaluates the newest checkpoint"
    flags.DEFINE_enum("mode", MODES[0], MODES, text, flag_values=values)
    string("mesh", "", "devices that share a batch x devices that share the hashtags, e.g. 4x2")
    string("coordinator", "", "HOST:PORT of process 0; auto: from the TPU slice or SLURM")
    integer("num_processes", 1, "number of processes that train this run together")
    integer("process", 0, "index of this process")
    return values


def _config_path(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the path of the config file, which must exist, and the other arguments."""
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
    """Returns the end of an error message: the config files, or where to find them."""
    source = pathlib.Path(__file__).parents[1]
    for folder in (pathlib.Path(), *([source] if (source / "pyproject.toml").exists() else [])):
        if found := sorted(map(str, folder.glob("configs/*.py"))):
            return f"there are {', '.join(found)}"
    return (
        "the configs of the project are in its source, which is not installed; work in a clone, or "
        "give the path of your own file"
    )


def _check_fields(argv: Sequence[str]) -> None:
    """Raises UserError for an unknown setting; the message names the nearest known one."""
    known = flatten(Config())
    for arg in argv:
        match = re.match(r"--?(no)?config\.([^=]*)", arg)
        if match and match[2] not in known:
            inside = [path for path in known if path.startswith(match[2] + ".")]
            meant = inside[0] if inside else nearest_field(match[2])
            raise UserError(f"no setting is called {match[2]!r}; did you mean --config.{meant}?")


def _load_config(path: str) -> Config:
    """Runs `get_config()` of a file, which may import other configs as `configs.NAME`."""
    source = str(pathlib.Path(path).resolve().parents[1])
    sys.path.append(source)
    try:
        config = runpy.run_path(path)["get_config"]()
    except Exception as error:  # the code of a config file may raise anything
        raise UserError(
            f"--config must name a Python file with a get_config() that returns a Config, but "
            f"running {path} ended with {type(error).__name__}: {error}; correct the file"
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
    """Rewrites a message of the flags library; for a setting, gives rule, value and example."""
    match = re.match(r"flag --config\.([\w.]+)=(.*?): ", message, re.DOTALL)
    if match and match[1] in flatten(Config()):
        rule, example = flag_rule(match[1])
        return f"{rule}, got {match[2]!r}; write e.g. {example}"
    return message.rstrip(".") + "; see --help"


if __name__ == "__main__":
    with streams.guarded():
        sys.exit(main(sys.argv[1:]))
