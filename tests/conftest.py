"""Settings and fixtures of every test: by default JAX on the CPU; no silent broadcasting."""

import gc
import importlib.metadata
import os
import pathlib
import shutil

ROOT = pathlib.Path(__file__).parents[1]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Processes that tests start import the package and the fixtures, in any working folder.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "fixtures")])
# Many tests, and the processes that they start, compile the same programs.
_CACHE = ROOT / ".pytest_cache" / "jax"
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
import small_run  # noqa: E402
import small_store  # noqa: E402
import tiny_world  # noqa: E402

from uhman_jax import channel_statistics, main  # noqa: E402
from uhman_jax.runtime import storage  # noqa: E402
from uhman_jax.shards.store import FrameStore  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

# Modules whose tests start no process, decode no clip and train no model.
QUICK = """
    attention attributes bootstrap buffer_pool choices clip_means clip_references confidence
    config downsampling duplicates
    block_ranking build channel_statistics csv_rows hashtags input_pipeline losses marked_hashtags
    batch memory metrics paper_claims
    paper_stats paper_summary processes profile progress quantize raw reference_rankings remedies
    ridge run run_directory scores settings split tables tfrecord trained_run truth view view_file
""".split()


def pytest_collection_modifyitems(items):
    """Marks the tests of `QUICK`, but for those that are slow or long."""
    for item in items:
        name = item.path.stem.removesuffix("_test")
        if name in QUICK and not {"slow", "long"} & {mark.name for mark in item.iter_markers()}:
            item.add_marker("quick")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder of a tiny world."""
    return tiny_world.write_dataset(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="module")
def world(root):
    """Its view and store, and the mean and deviation of its channels."""
    view, store = tiny_world.load(root, tiny_world.make_config(root))
    return view, store, channel_statistics.measure(view, store)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Directory of a run of the tiny world, of two seeds. Tests leave it as it is."""
    return tiny_world.finished_run(tmp_path_factory.mktemp("finished"), num_seeds=2)[1]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Folder of small clips and of a run on them. Tests leave them as they are."""
    root = tmp_path_factory.mktemp("trained")
    small_run.make(root)
    return root


@pytest.fixture
def view():
    """Labels of the clips of `small_store`."""
    return small_store.view()


@pytest.fixture
def frames(tmp_path):
    """Their store."""
    return FrameStore(small_store.write_store(tmp_path / "shards"))


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """gs://bucket in a folder, and a cache of its own."""
    monkeypatch.setenv(storage.CACHE, str(tmp_path / "cache"))
    buckets.register(tmp_path.parent / f"{tmp_path.name}-buckets")
    yield buckets.Buckets
    buckets.unregister()


@pytest.fixture
def refused(capsys):
    """A function that runs a wrong command line in this process, and returns its one sentence."""

    def call(*argv):
        capsys.readouterr()
        assert main.main(list(map(str, argv))) == 2
        *bars, message = capsys.readouterr().err.splitlines()
        assert message.startswith("error: ") and all("%" in line for line in bars if line)
        return message

    return call


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
