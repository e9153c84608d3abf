"""Settings of every test: JAX on the CPU unless told otherwise, and no silent broadcasting."""

import gc
import importlib.metadata
import os
import pathlib
import shutil

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Many tests, and the processes that they start, compile the same programs.
_CACHE = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.02")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
# The compilers' work on programs that run once took minutes of the suite; 0 tests with it.
quick = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"
if quick and importlib.metadata.version("jaxlib").startswith("0.10."):  # others may not know it
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false"
gc.set_threshold(20_000)  # as in `main`

import buckets  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
import tiny_world  # noqa: E402

from uhman_jax import channel_statistics  # noqa: E402
from uhman_jax.runtime import storage  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder of a tiny world."""
    return tiny_world.write_dataset(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="module")
def world(root):
    """Its view and store, and the mean and deviation of its channels."""
    view, store = tiny_world.load(root, tiny_world.make_config(root))
    return view, store, channel_statistics.measure(view, store)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """gs://bucket in a folder, and a cache of its own."""
    monkeypatch.setenv(storage.CACHE, str(tmp_path / "cache"))
    buckets.register(tmp_path.parent / f"{tmp_path.name}-buckets")
    yield buckets.Buckets
    buckets.unregister()


@pytest.fixture(scope="module")
def browser():
    """Chromium, or a skip with the reason."""
    library = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with library.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
