"""Makes TFRecord shards of region features from videos.

With --runner=NAME the shards are made on Apache Beam, and unknown flags are passed to Beam.

Without --runner, several machines that share the folders can each make a part of the shards. First
run --part=0/16, which stores the weights that all parts need; then 1/16 to 16/16, in parallel;
finally the same command without --part.
"""

import dataclasses
import enum
import inspect
import re
from pathlib import Path
from typing import Any

from absl import flags

from uhman_jax.config import MAX_FRAMES, Config, PreprocessConfig
from uhman_jax.config_checks import validate
from uhman_jax.runtime import signals, storage
from uhman_jax.runtime.errors import UserError, count_of, exit_on_user_error
from uhman_jax.runtime.streams import run_app

_ROOT = flags.DEFINE_string(
    "root",
    None,
    "Folder of the videos; if it has a videos.csv, only the listed videos are used.",
    required=True,
)
_OUTPUT = flags.DEFINE_string("output", "", "Folder of the shards; default: ROOT/features/<hash>.")
_RETRY = flags.DEFINE_list(
    "retry", [], "Clip states, e.g. timeout: shards with clips in these states are made again."
)
_RUNNER = flags.DEFINE_string(
    "runner", "", "Beam runner, e.g. DirectRunner, FlinkRunner, SparkRunner, DataflowRunner."
)
_PART = flags.DEFINE_string("part", "", "NUMBER/COUNT of the shards to make, e.g. 2/16; see above.")
_DEFINE = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}


def _define_flags() -> dict[str, flags.FlagHolder]:
    """Defines a flag for each setting except `output_dir`; its help is the comment in config.py."""
    comments = dict(re.findall(r"(\w+):.*  # (.*)", inspect.getsource(PreprocessConfig)))
    holders = {}
    for field in dataclasses.fields(PreprocessConfig):
        name, default, text = field.name, field.default, comments[field.name]
        if isinstance(default, enum.Enum):
            holders[name] = flags.DEFINE_enum_class(name, default, type(default), text)
        elif name != "output_dir":
            holders[name] = _DEFINE[type(default)](name, default, text)
    return holders


_FIELDS = _define_flags()


def run(beam_arguments: list[str]) -> None:
    """Makes the shards and prints the number of clips in each state.

    Args:
        beam_arguments: flags that are passed to Beam.

    Raises:
        UserError: a flag is invalid, or `pipeline.preprocess` raises it.
    """
    from uhman_jax.preprocess import ledger, pipeline
    from uhman_jax.preprocess.find_videos import list_inputs

    root = storage.path(_ROOT.value)
    config = Config(preprocess=PreprocessConfig(**{k: f.value for k, f in _FIELDS.items()}))
    try:
        validate(config)
    except UserError as error:  # the message names settings by their path in a config
        raise UserError(str(error).replace("preprocess.", "--")) from error
    config.preprocess.max_frames = config.preprocess.max_frames or MAX_FRAMES
    if unknown := set(_RETRY.value) - set(ledger.STATES):
        raise UserError(
            f"--retry must name states of {', '.join(ledger.STATES)}, got "
            f"{', '.join(map(repr, sorted(unknown)))}; remove them"
        )
    part = pipeline.Part.parse(_PART.value) if _PART.value else None
    if part and (_RUNNER.value or _RETRY.value):
        other = "--runner" if _RUNNER.value else "--retry"
        raise UserError(f"--part must not be combined with {other}, got both; leave one out")
    beam_options = _beam_options(beam_arguments) if _RUNNER.value else None
    directory = storage.path(_OUTPUT.value or pipeline.features_dir(root, config.preprocess))
    if _OUTPUT.value or root.is_dir():
        storage.check_folder(directory, "--output")
    inputs = list_inputs(root, ledger.frame_times(directory))
    summary = pipeline.preprocess(
        root,
        inputs,
        directory,
        config.preprocess,
        retry=tuple(_RETRY.value),
        beam_options=beam_options,
        part=part,
    )
    if part and not part.number:
        print(f"the weights are in {directory}; continue with --part=1/{part.count}")
    else:
        _print_summary(summary, directory, part)


def _beam_options(arguments: list[str]) -> Any:
    try:
        from uhman_jax.preprocess import beam
    except ImportError as error:
        raise UserError(
            "--runner needs Apache Beam, which is not installed; pip install -e '.[beam]'"
        ) from error
    return beam.options_of([f"--runner={_RUNNER.value}", *arguments])


def _print_summary(summary: Any, directory: Path, part: Any) -> None:
    for state, count in summary.counts.items():
        print(f"{state:12s} {count:8d}")
    if summary.seconds:
        rate = summary.frames / summary.seconds
        frames = count_of(summary.frames, "frame")
        print(f"{frames} in {summary.seconds:.1f} s, {rate:.1f} frames/s")
    if summary.reused:
        print(f"{summary.reused} of {count_of(len(summary.entries), 'clip')} had features already")
    if part:
        print(f"part {part} is in {directory}; when all parts are, run again without --part")
    else:
        print(f"features and ledger.jsonl are in {directory}")


def main(argv: list[str]) -> None:
    """Runs the command; exits with status 2 after a user error and 75 after a signal."""
    with exit_on_user_error(), signals.exit_on_signal():
        if len(argv) > 1 and not _RUNNER.value:
            raise UserError(
                f"all arguments must be flags, got {argv[1]!r}; write e.g. --root=FOLDER"
            )
        run(argv[1:])


def _for_beam(argv: list[str]) -> bool:
    return any(word.lstrip("-").split("=")[0] == "runner" for word in argv[1:])


if __name__ == "__main__":
    run_app(main, known_only=_for_beam, positional=True)
