"""Runs an experiment: prepares data, trains, evaluates and reports, or continues a run."""

import contextlib
import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

from uhman_jax import __version__, run_directory
from uhman_jax.config import Config, flatten, go_on_with
from uhman_jax.config_checks import check_mesh, differences
from uhman_jax.dataset.rules import CURRENT
from uhman_jax.dataset.view import View
from uhman_jax.prepare import (
    Log,
    Prepared,
    channel_statistics,
    clip_means,
    dataset_root,
    extraction_settings,
    features_dir,
    prepare,
)
from uhman_jax.relative_paths import FOLDER, PATHS, located, same_path
from uhman_jax.run_directory import CHECKPOINTS, CONFIG, REPORT, VIEW, FinishedRun, read_config
from uhman_jax.runtime import lock, signals, storage
from uhman_jax.runtime.errors import UserError, count_of
from uhman_jax.runtime.processes import Cluster
from uhman_jax.scores import table
from uhman_jax.shards.store import INFO_FILE

_ONE_DEVICE = Cluster()

_NOT_TRAINED = (
    "--mode=evaluate needs a trained run, got no checkpoint in {workdir}; "
    "run with --mode=train_and_evaluate first"
)


def run(
    config: Config,
    workdir: str | os.PathLike[str],
    mode: str = "train_and_evaluate",
    log: Log = print,
    report: bool = True,
    cluster: Cluster = _ONE_DEVICE,
) -> bool:
    """Does the remaining work of a run directory and logs the table of its scores.

    Args:
        config: a valid config.
        workdir: the run directory; created if it does not exist.
        mode: "train_and_evaluate", or "evaluate" to only evaluate the newest checkpoint.
        log: function that logs a message.
        report: whether to write report.html.
        cluster: the devices and processes that share the work.

    Returns:
        True; False if a signal stopped the training, which has saved a checkpoint.

    Raises:
        UserError: a setting, the data or the run directory is wrong.
    """
    workdir = storage.path(workdir)
    cluster.initialize()
    check_mesh(config, cluster.shape())
    if cluster.is_main_process:
        storage.check_folder(workdir, "--workdir")
    config, facts = _check_same_config(config, workdir)
    here = located(config, facts, workdir)
    if mode == "evaluate" and not any((workdir / CHECKPOINTS).glob("[0-9]*")):
        raise UserError(_NOT_TRAINED.format(workdir=workdir))
    with contextlib.ExitStack() as stack:
        if cluster.is_main_process:
            _check_folders(here)
            stack.enter_context(lock.hold(workdir, "wait for it, or use another --workdir"))
            storage.remove_leftovers(workdir)
        else:
            log, report = lambda line: None, False
        prepared = _prepare(config, here, workdir, log, cluster)
        metrics = run_directory.final_metrics(workdir)
        cluster.barrier("looked for metrics")
        if metrics is None or mode == "evaluate":
            metrics = _train_and_evaluate(config, prepared, workdir, mode, log, cluster)
        else:
            log(f"Run: finished earlier, reused {workdir}.")
        if metrics:
            _show(FinishedRun(workdir, config, facts, metrics), prepared.raw.root, log, report)
        cluster.barrier("done")  # some launchers kill all processes when one exits
        return bool(metrics)


def _prepare(
    config: Config, here: Config, workdir: pathlib.Path, log: Log, cluster: Cluster
) -> Prepared:
    """Prepares the data in the first process, then in the others; `here` has absolute paths."""
    if not cluster.is_main_process:
        cluster.barrier("prepared")  # the first process creates missing data
    path = workdir / VIEW
    view = View.load(path) if path.exists() else None  # of an earlier start
    prepared = prepare(here, log, view.rules if view else CURRENT)
    if cluster.is_main_process:
        _keep_inputs(config, prepared, view, workdir)
        cluster.barrier("prepared")
    return prepared


def _show(finished: FinishedRun, root: pathlib.Path, log: Log, report: bool) -> None:
    """Logs the table of scores; with `report`, writes a missing report.html."""
    path = finished.workdir / REPORT
    if report and not path.exists():
        from uhman_jax.report import write_report  # takes 0.5 s, mostly Matplotlib

        write_report(finished.workdir, root)
    log("\n" + table(finished.scores, finished.system))
    if report:
        log(f"\nReport: {path}")


def _train_and_evaluate(
    config: Config, prepared: Prepared, workdir: pathlib.Path, mode: str, log: Log, cluster: Cluster
) -> dict[str, Any] | None:
    """Trains unless `mode` is "evaluate", evaluates, and returns the metrics; None at a signal."""
    from uhman_jax import direct_path, train  # imports JAX
    from uhman_jax.evaluate import evaluate
    from uhman_jax.runtime.mesh import Devices

    keep_compiled_programs()

    store, view = prepared.store, prepared.view
    devices = Devices(len(view.hashtags), shape) if (shape := cluster.shape()) else None
    if mode == "evaluate":
        paths = direct_path.restore_paths(config, view, workdir)
        if paths is None:  # the folder held other files
            raise UserError(_NOT_TRAINED.format(workdir=workdir))
        state = paths.network
        if not int(state.validated_step):
            log(f"No validation before step {int(state.step)}: its parameters are evaluated.")
    else:
        statistics = channel_statistics(prepared, log)
        with signals.graceful_stop() as stopped:
            try:
                how: dict[str, Any] = {"should_stop": stopped, "log": log, "devices": devices}
                paths = direct_path.train_paths(config, view, store, statistics, workdir, **how)
            except train.Interrupted as interrupted:
                log(f"Saved at step {interrupted.step} in {interrupted.directory}.")
                return None
    state = paths.network
    stopped = train.stopped_early(config, view, state)
    num_steps = int(state.step) if stopped else train.total_steps(config, view)
    steps = {"step": int(state.step), "num_steps": num_steps}
    if cluster.is_main_process:
        (workdir / REPORT).unlink(missing_ok=True)  # of an earlier evaluation
    trained = paths.model()
    extra: dict[str, Any] = steps | {"best_step/seeds": [int(step) for step in state.best_step_S]}
    if paths.direct is not None:
        weights = direct_path.choose_weights(paths, store, log)
        trained, extra[direct_path.PATH_WEIGHTS] = paths.model(weights), weights
    return evaluate(
        *trained,
        config,
        view,
        store,
        workdir,
        truth=prepared.truth,
        # Only the first process writes what is computed from them.
        means=clip_means(prepared, log) if cluster.is_main_process else None,
        extra=extra,
        log=log,
        devices=devices,
    )


def keep_compiled_programs() -> None:
    """Makes JAX cache compiled programs in $JAX_COMPILATION_CACHE_DIR, or in the user's cache.

    On two cores the first step starts after 5 s instead of 22 s.
    """
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", os.fspath(storage.user_cache("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _check_folders(here: Config) -> None:
    """Raises UserError if the run cannot write a data folder that it has to create."""
    root = dataset_root(here)
    if not here.data.root and not root.is_dir():
        storage.check_folder(root, "--config.data.simulated_dir")
    features = features_dir(here)
    if not (features / INFO_FILE).exists() and (root.is_dir() or here.preprocess.output_dir):
        storage.check_folder(features, "--config.preprocess.output_dir")


def _check_same_config(config: Config, workdir: pathlib.Path) -> tuple[Config, dict[str, Any]]:
    """Returns the config and facts of a run; a new run has the given config and no facts.

    `preprocess.max_frames` is a number in the result, also if it is automatic in the given config.

    Raises:
        UserError: the run directory belongs to another config.
    """
    try:
        before, facts = read_config(workdir)
    except FileNotFoundError:
        if (workdir / CHECKPOINTS).exists():
            raise UserError(
                f"a run directory must have its {CONFIG}, got none in {workdir}; "
                "use another --workdir"
            ) from None
        return dataclasses.replace(config, preprocess=extraction_settings(config)), {}
    config = go_on_with(config, run_directory.read_json(workdir / CONFIG))
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
    """Writes config.json and view.npz; with a view `before`, checks that the data are the same."""
    workdir.mkdir(parents=True, exist_ok=True)
    view = prepared.view
    if not before:
        view.save(workdir / VIEW)
    elif before.fingerprint != view.fingerprint:
        raise UserError(
            f"the data must stay as they were when the run began, but {workdir / VIEW} describes "
            f"{count_of(len(before.video_ids), 'video')} and "
            f"{count_of(len(before.hashtags), 'hashtag')} that differ from "
            f"the current {len(view.video_ids)} and {len(view.hashtags)}; use another --workdir"
        )
    if (workdir / CONFIG).exists():
        return
    libraries = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {name: importlib.metadata.version(name) for name in libraries}
    facts = {
        "source": source_revision(),
        "versions": {"uhman_jax": __version__, "python": platform.python_version(), **versions},
        "data": prepared.raw.fingerprint,
        "view": view.fingerprint,
        "features": prepared.store.info,
        FOLDER: os.getcwd(),  # base of relative paths in the settings
    }
    settings = dataclasses.replace(config.view, min_count=view.min_count)  # may be automatic
    run_directory.write_config(workdir, dataclasses.replace(config, view=settings), facts)


def source_revision() -> str:
    """Returns the commit of the package's checkout, with "-dirty" if changed; "" without one."""
    folder = pathlib.Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        known = subprocess.run(
            [*command[:3], "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=10
        )
        if known.returncode == 0:  # else git found the checkout of another project
            found = subprocess.run(command, capture_output=True, text=True, timeout=10)
            return found.stdout.strip()
    return ""
