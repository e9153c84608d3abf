"""Several devices do what one does: eight virtual ones, all shapes of their mesh."""

import os
import pathlib
import subprocess
import sys

import jax
import mesh_run
import numpy as np
import pytest

TESTS = pathlib.Path(__file__).parent


def start(*arguments, **environment):
    command = [sys.executable, str(TESTS / "mesh_run.py"), *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=TESTS.parent,
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def assert_ends_alike(got, want):
    for name, array in want.items():
        atol = 0 if np.asarray(array).dtype.kind in "biu" else 2e-5
        np.testing.assert_allclose(got[name], array, atol=atol, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(("estimator", "shapes"), [("exact", "1 2 4 8 2,4"), ("sampled", "4")])
def test_every_shape_of_the_mesh_ends_like_one_device(root, tmp_path, estimator, shapes):
    assert jax.device_count() == 1
    config = mesh_run.config_of(root, estimator)
    want = mesh_run.ends(config, root, tmp_path / "alone")
    process = start(root, tmp_path, shapes, f"--estimator={estimator}")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    for name in shapes.replace(",", "then").split():
        with np.load(tmp_path / f"{name}.npz") as got:
            assert_ends_alike(got, want)
