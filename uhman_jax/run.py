"""One run: prepare, train, evaluate, report, each from where an earlier start left it.

The run directory holds `config.json`, `view.npz`, `metrics.jsonl`, `checkpoints/`, `metrics.json`,
`predictions.parquet`, `examples.npz` and `report.html`.
"""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Callable
from typing import Any

from uhman_jax import __version__, lock, stop, storage
from uhman_jax.cluster import Cluster
from uhman_jax.config import Config, differences, flatten, from_dict, go_on_with, to_dict
from uhman_jax.dataset.rules import CURRENT
from uhman_jax.dataset.view import View
from uhman_jax.errors import UserError
from uhman_jax.located import FOLDER, PATHS, located, same_path
from uhman_jax.prepare import (
    Prepared,
    channel_statistics,
    check_same_view,
    features_of,
    prepare,
    root_of,
)
from uhman_jax.shards.store import INFO_FILE
from uhman_jax.storage import replacing

COLUMNS = ("P@1", "P@5", "P@10", "P@50", "R@10", "R@50", "F1@10", "NDCG@10", "MRR", "MAP")
RATIO = "kP/R@10"  # about equal over systems on the same clips
ALONE = Cluster()  # one process, one device
_RUN = "run"  # key of config.json for what is no setting: versions and fingerprints


def run(
    config: Config,
    workdir: str | os.PathLike[str],
    mode: str = "train_and_evaluate",
    say: Callable[[str], object] = print,
    report: bool = True,
    cluster: Cluster = ALONE,
) -> bool:
    """Brings a run directory to its end and prints the table of its metrics.

    Args:
        config: a valid one.
        workdir: the run directory; made where it is not there.
        mode: "train_and_evaluate", or "evaluate" for the newest checkpoint as it is.
        say: takes lines for a person.
        report: also write `report.html`.
        cluster: the devices and processes that share the work.

    Returns:
        True; False where a signal stopped it, with a checkpoint on disk.

    Raises:
        UserError: something a person can mend.
    """
    workdir = storage.path(workdir)
    if not cluster.mesh and not cluster.coordinator:
        # One device is used. Where JAX sees more, kernels of our own do without (region_product).
        os.environ.setdefault("JAX_CUDA_VISIBLE_DEVICES", "0")
    cluster.join()
    cluster.check_devices()
    cluster.check_config(config)
    if cluster.primary:
        storage.check_folder(workdir, "--workdir")
    config, facts = _check_same_config(config, workdir)
    here = located(config, facts, workdir)
    if mode == "evaluate" and not (workdir / "checkpoints").is_dir():
        raise UserError(
            f"--mode=evaluate needs a trained run, got no checkpoint in {workdir}; "
            "run with --mode=train_and_evaluate first"
        )
    if not cluster.primary:
        finished = _run(config, here, workdir, mode, lambda line: None, False, cluster)
        cluster.meet("done")  # an engine may end all processes when it sees one that has ended
        return finished
    _check_folders(here)
    with lock.hold(workdir, "wait for it, or use another --workdir"):
        storage.remove_leftovers(workdir)
        finished = _run(config, here, workdir, mode, say, report, cluster)
        cluster.meet("done")
        return finished


def _run(
    config: Config,
    here: Config,
    workdir: pathlib.Path,
    mode: str,
    say: Callable[[str], object],
    report: bool,
    cluster: Cluster,
) -> bool:
    """`run` in a directory that no other run uses; `here` has absolute paths."""
    if not cluster.primary:
        cluster.meet("prepared")  # the first makes what is not there yet
    path = workdir / "view.npz"
    view = View.load(path) if path.exists() else None  # of an earlier start
    prepared = prepare(here, say, view.rules if view else CURRENT)
    if cluster.primary:
        _keep_inputs(config, prepared, view, workdir)
        cluster.meet("prepared")
    metrics = _finished_metrics(workdir)
    cluster.meet("looked for metrics")
    if metrics is None or mode == "evaluate":
        metrics = _train_and_evaluate(config, prepared, workdir, mode, say, cluster)
        if metrics is None:
            return False
    else:
        say(f"Run: finished earlier, reused {workdir}.")
    if report and not (workdir / "report.html").exists():
        from uhman_jax.report import write_report

        write_report(workdir, prepared.raw.root)
    say("\n" + table(config, metrics))
    if report:
        say(f"\nReport: {workdir / 'report.html'}")
    return True


def _train_and_evaluate(
    config: Config,
    prepared: Prepared,
    workdir: pathlib.Path,
    mode: str,
    say: Callable[[str], object],
    cluster: Cluster,
) -> dict[str, Any] | None:
    """Trains (in that mode) and evaluates; None where a signal stopped it."""
    from uhman_jax import train  # imports JAX
    from uhman_jax.devices import Devices
    from uhman_jax.evaluate import evaluate

    keep_compiled_programs()

    store, view = prepared.store, prepared.view
    shape = cluster.shape()
    devices = Devices(len(view.hashtags), shape) if shape else None
    if mode == "evaluate":
        if devices:
            devices.check_batch("evaluate.batch_size", config.evaluate.batch_size)
        state = train.restore(config, view, store.num_channels, workdir)
        if state is None:
            raise UserError(
                f"--mode=evaluate needs a checkpoint, got none in {workdir / 'checkpoints'}; "
                "run with --mode=train_and_evaluate first"
            )
        if not int(state.validated_step):
            say(f"No validation before step {int(state.step)}: its parameters are evaluated.")
    else:
        statistics = channel_statistics(prepared, say)
        with stop.between_steps() as stopped:
            try:
                state = train.train(
                    config,
                    view,
                    store,
                    statistics,
                    workdir,
                    should_stop=stopped,
                    say=say,
                    devices=devices,
                )
            except train.Interrupted as interrupted:
                say(f"Saved at step {interrupted.step} in {workdir / 'checkpoints'}.")
                return None
    steps = {"step": int(state.step), "num_steps": train.total_steps(config, view)}
    if cluster.primary:
        (workdir / "report.html").unlink(missing_ok=True)  # of an evaluation before
    return evaluate(
        train.build_model(config.model, view),
        state.kept,
        state.statistics,
        config,
        view,
        store,
        workdir,
        truth=prepared.truth,
        extra=steps | {"best_step/seeds": [int(step) for step in state.best_step_S]},
        say=say,
        devices=devices,
    )


def keep_compiled_programs() -> None:
    """Lets JAX keep compiled programs in the user's cache, unless told of another place.

    Measured on two cores: from the command to the first step 5 s instead of 22 s.
    """
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", os.fspath(storage.user_cache("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def read_config(workdir: pathlib.Path) -> tuple[Config, dict[str, Any]]:
    """The settings of a run directory, and what its config.json says besides: versions, data.

    Raises:
        FileNotFoundError: it has no config.json.
        UserError: the file is damaged or of another version.
    """
    config, _, facts = _read_stored(workdir)
    return config, facts


def _read_stored(workdir: pathlib.Path) -> tuple[Config, dict[str, Any], dict[str, Any]]:
    """What `read_config` returns, and between the two the fields as they are written."""
    path = workdir / "config.json"
    try:
        values = json.loads(path.read_text("utf-8"))
        facts = values.pop(_RUN, {})
        return from_dict(values), values, facts
    except UserError as error:
        raise UserError(f"{path} is damaged or of another version: {error}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} must be a JSON object as the run wrote it, got a damaged file ({error}); "
            "train in another directory"
        ) from error


def which_seed(config: Config, seed: int | None) -> int:
    """The seed of a run that a person asked for, or the first.

    Raises:
        UserError: the run has no such seed.
    """
    first, last = config.seed, config.seed + config.train.num_seeds - 1
    if seed is None:
        return first
    if not first <= seed <= last:
        raise UserError(
            f"--seed must be one of the run's, {first} to {last}, got {seed}; "
            "leave it out for the first"
        )
    return seed


def require_trained(path: pathlib.Path) -> pathlib.Path:
    """The path itself: a file of a finished run.

    Raises:
        UserError: it is not there, or has a name that can't be used.
    """
    storage.check_name(path.parent, "--run")
    if not path.is_file():
        raise UserError(
            f"--run must be the folder of a trained and evaluated run, got {path.parent} without "
            f"{path.name}; name another, or train and evaluate it first"
        )
    return path


def damaged(path: pathlib.Path, what: object) -> UserError:
    """The error that names a file of a finished run which is not as it was written."""
    return UserError(
        f"{path} must be as the run wrote it, got a damaged file ({what}); evaluate the run again"
    )


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object of a finished run.

    Raises:
        UserError: it is damaged.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise damaged(path, error) from error
    if not isinstance(values, dict):
        raise damaged(path, "no JSON object")
    return values


def _check_folders(here: Config) -> None:
    """Raises UserError where a folder of data that the run will write can't be written."""
    root = root_of(here)
    if not here.data.root and not root.is_dir():
        storage.check_folder(root, "--config.data.simulated_dir")
    features = features_of(here)
    if not (features / INFO_FILE).exists() and (root.is_dir() or here.preprocess.output_dir):
        storage.check_folder(features, "--config.preprocess.output_dir")


def _check_same_config(config: Config, workdir: pathlib.Path) -> tuple[Config, dict[str, Any]]:
    """The config that a run goes on with, and what its config.json says besides its settings.

    A new run has the config as given (see `go_on_with`) and no facts.

    Raises:
        UserError: the run directory belongs to another config.
    """
    try:
        before, stored, facts = _read_stored(workdir)
    except FileNotFoundError:
        if (workdir / "checkpoints").exists():
            raise UserError(
                f"a run directory must hold its config.json, got none in {workdir}; "
                "use another --workdir"
            ) from None
        return config, {}
    config = go_on_with(config, stored)
    old, new = flatten(before), flatten(config)
    same = [
        path
        for path in PATHS
        if FOLDER in facts and same_path(str(old[path]), str(facts[FOLDER]), str(new[path]))
    ]
    changed = [text for text in differences(before, config) if text.split(":")[0] not in same]
    if changed:
        raise UserError(
            f"the run in {workdir} must go on with its own settings, but these differ: "
            f"{'; '.join(changed)}; use another --workdir, or set them back"
        )
    return config, facts


def _keep_inputs(
    config: Config, prepared: Prepared, before: View | None, workdir: pathlib.Path
) -> None:
    """Writes config.json and view.npz, or checks that the data are those the run began with.

    Args:
        config: of the run.
        prepared: what it reads.
        before: the view that the run began with; None for a new run.
        workdir: the run directory.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    if before:
        check_same_view(before, prepared.view, workdir / "view.npz")
    else:
        prepared.view.save(workdir / "view.npz")
    if (workdir / "config.json").exists():
        return
    names = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    facts = {
        "source": _source_revision(),
        "versions": {"uhman_jax": __version__, "python": platform.python_version(), **versions},
        "data": prepared.raw.fingerprint,
        "view": prepared.view.fingerprint,
        "features": prepared.store.info,
        FOLDER: os.getcwd(),  # that relative paths of the settings start from
    }
    with replacing(workdir / "config.json") as file:
        file.write((json.dumps({**to_dict(config), _RUN: facts}, indent=2) + "\n").encode())


def _source_revision() -> str:
    """Commit of the package's checkout, with "-dirty" where it was changed; "" where it is none."""
    folder = pathlib.Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        known = subprocess.run(
            [*command[:3], "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=10
        )
        if known.returncode == 0:  # else some other project's, into which this one is installed
            found = subprocess.run(command, capture_output=True, text=True, timeout=10)
            return found.stdout.strip()
    return ""


def _finished_metrics(workdir: pathlib.Path) -> dict[str, Any] | None:
    """metrics.json of the last step; None where training or evaluation has work left."""
    try:
        metrics = json.loads((workdir / "metrics.json").read_text("utf-8"))
        return metrics if metrics["step"] == metrics["num_steps"] else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def table(config: Config, metrics: dict[str, Any]) -> str:
    """The metrics of a run beside its reference rows, for a terminal."""
    model = config.model
    names = {
        "popularity": "popularity",
        "user_history": "user history",
        "user_attributes": "user attributes",
        "test": model.name.title(**vars(model)),
        "observable_oracle": "observable oracle",
        "oracle": "oracle",
    }
    rows = [["", *COLUMNS, "kP/R"]]
    for prefix, name in names.items():
        if f"{prefix}/{COLUMNS[0]}" not in metrics:
            continue
        rows.append([name] + [_cell(metrics[f"{prefix}/{key}"]) for key in (*COLUMNS, RATIO)])
        widths = [metrics.get(f"{prefix}/{key}/interval") for key in COLUMNS]
        if any(width is not None for width in widths):
            label = f"  +- 95 %, {metrics['num_seeds']} seeds"
            rows.append([label] + [_cell(width) for width in widths] + [""])
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, wide, strict=True))
        ).rstrip()
        for row in rows
    ]
    if (gap := metrics.get("gap_closed/P@5")) is not None:
        lines.append(f"Gap closed between popularity and oracle in P@5: {gap:.2f}")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
