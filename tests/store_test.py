import collections
import functools
import itertools
import pathlib
import pickle
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from uhman_jax.runtime.errors import UserError
from uhman_jax.shards import metadata, quantize, store, tfrecord
from uhman_jax.shards import record as record_lib
from uhman_jax.shards.index import read_index

C = 7
M = 64
LENGTHS = (3, 0, 2)  # records of each shard; the second holds none
STORAGES = ("uint8", "bfloat16", "float32")
INFO = {"weights": "random", "frames_per_second": 5.0}


def make_record(number, storage="uint8", num_channels=C):
    rng = np.random.default_rng(number)
    num_frames = 1 + number % 4
    features_FMC = rng.normal(size=(num_frames, M, num_channels)).astype(np.float32)
    times_F = np.arange(num_frames, dtype=np.float32) / 5
    return store.FrameRecord(f"vidéo/{number}", *quantize.pack(features_FMC, storage), times_F)


def write_store(directory, storage="uint8", lengths=LENGTHS):
    directory.mkdir(exist_ok=True)
    schema = store.Schema(C, storage)
    numbers = iter(range(sum(lengths)))
    for index, length in enumerate(lengths):
        records = [make_record(next(numbers), storage) for _ in range(length)]
        store.write_shard(directory, index, len(lengths), records, schema)
    store.write_metadata(directory, len(lengths), schema, INFO)
    return directory


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of shards; tests only read it."""
    return write_store(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def directory(whole, tmp_path):
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / "copy")


def ids(*numbers):
    return tuple(f"vidéo/{number}" for number in numbers)


def view_record(frames, index):
    frames[index]


def copy_record(frames, index):
    frames.copy(index, np.zeros((frames.max_frames, M, C), np.uint8))


READS = [view_record, copy_record]


def offsets_of(path):
    return np.array([offset for offset, *_ in tfrecord.records(tfrecord.map_file(path), path)])


def assert_same(got, want):
    assert got.video_id == want.video_id
    for a, b in zip(got[1:], want[1:], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("storage", STORAGES)
def test_reads_and_copies_what_was_written(tmp_path, storage):
    frames = store.FrameStore(write_store(tmp_path / "a", storage))
    assert len(frames) == 5 and frames.video_ids == ids(*range(5))
    assert frames.num_frames_V.tolist() == [1, 2, 3, 4, 1] and frames.max_frames == 4
    assert (frames.num_regions, frames.num_channels, frames.schema.storage) == (M, C, storage)
    assert frames.info == INFO
    assert frames.rows(["vidéo/4", "vidéo/0"]).tolist() == [4, 0]
    for i in [3, 0, 4, 1, 2]:
        record = make_record(i, storage)
        assert_same(frames[i], record)
        codes_FMC = np.full((5, M, C), 7, frames.schema.dtype)
        num_frames, arrays = frames.copy(i, codes_FMC)
        copied = record._replace(codes_FMC=codes_FMC[:num_frames], **arrays)
        assert_same(copied, record)
        assert list(arrays) == ["scale_C", "offset_C"]
        assert (codes_FMC[num_frames:] == 7).all()
    assert_same(pickle.loads(pickle.dumps(frames))[3], make_record(3, storage))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("num_frames, num_channels", [(1, 1), (1, 2), (16, 32), (3, 300)])
def test_bytes_hold_what_tfds_would_write(num_frames, num_channels, storage):
    """Sizes at which the lengths inside take one, two and three bytes."""
    from tensorflow_datasets.proto import tf_example_pb2

    schema = store.Schema(num_channels, storage)
    codes_FMC = np.ones((num_frames, M, num_channels), schema.dtype)
    channels = np.ones(num_channels, np.float32)
    times_F = np.arange(num_frames, dtype=np.float32)
    record = store.FrameRecord("v" * 130, codes_FMC, channels, channels, times_F)
    ours = bytes(record_lib.serialize(record, schema))
    message = tf_example_pb2.Example.FromString(ours)
    head = message.features.feature["head_crc32c"].bytes_list.value[0]
    theirs = metadata.features_dict(schema).serialize_example(
        {
            "video_id": record.video_id,
            "codes": codes_FMC,
            "scale": channels,
            "offset": channels,
            "times": times_F,
            "head_crc32c": np.frombuffer(head, np.uint8),
        }
    )
    assert message == tf_example_pb2.Example.FromString(theirs)
    assert len(ours) == len(theirs)


def test_tfds_reads_the_folder(whole, tmp_path):
    pytest.importorskip("tensorflow")
    for storage in ("uint8", "bfloat16"):
        folder = whole if storage == "uint8" else write_store(tmp_path / "a", storage)
        builder = tfds.builder_from_directory(folder)
        assert builder.info.splits["train"].shard_lengths == [3, 0, 2], builder.info
        rows = list(tfds.as_numpy(builder.as_dataset(split="train")))
        expected = [make_record(i, storage) for i in range(5)]
        assert [row["video_id"].decode() for row in rows] == [one.video_id for one in expected]
        for row, record in zip(rows, expected, strict=True):
            np.testing.assert_array_equal(row["codes"], record.codes_FMC)
            np.testing.assert_array_equal(row["times"], record.times_F)


def test_opening_and_writing_need_no_tensorflow(whole):
    code = """if True:
        import sys
        import tensorflow_datasets as tfds
        from uhman_jax.shards import record, store
        builder = tfds.builder_from_directory(sys.argv[1])
        assert builder.info.features["codes"].shape == (None, 64, 7)
        frames = store.FrameStore(sys.argv[1])
        record.serialize(frames[0], frames.schema)
        assert "tensorflow" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code, whole], check=True)


def test_same_arguments_give_the_same_bytes(whole, tmp_path):
    one, two = whole, write_store(tmp_path / "two")
    names = sorted(path.name for path in one.iterdir())
    shards = [f"frames-train.tfrecord-{i:05d}-of-00003" for i in range(3)]
    assert names == ["dataset_info.json", "extractor.json", "features.json", *shards, "index.npz"]
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("indexed", [True, False])  # False: as left by older versions
@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[pytest.mark.long] if n else []) for n in range(3)]
)
def test_a_damaged_byte_anywhere_is_found(directory, seed, indexed, read):
    path = store.shard_path(directory, 0, 3)
    whole = path.read_bytes()
    offsets = offsets_of(path)
    rng = np.random.default_rng(seed)
    heads = offsets[:, np.newaxis] + np.arange(120)  # framing, id, times and checksum
    anywhere = rng.integers(0, len(whole), 150)
    for byte in {*rng.permutation(heads.reshape(-1))[:60].tolist(), *anywhere.tolist()}:
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        if not indexed:
            (directory / "index.npz").unlink(missing_ok=True)
        with pytest.raises(tfrecord.DamagedRecordError) as caught:
            frames = store.FrameStore(directory)
            assert frames.video_ids == ids(*range(5))  # ids are trusted
            for i in range(len(frames)):
                read(frames, i)
        assert isinstance(caught.value, UserError)
        assert caught.value.path == path
        assert caught.value.offset == offsets[offsets <= byte].max()


def test_every_truncation_of_a_shard_is_found(directory):
    path = store.shard_path(directory, 2, 3)
    whole = path.read_bytes()
    second = int(offsets_of(path)[1])
    for size in [0, 1, 11, 12, 100, second - 1, second, second + 5, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(tfrecord.DamagedRecordError) as caught:
            store.FrameStore(directory)
        assert path.name in str(caught.value) and "delete this file" in str(caught.value)


def test_an_index_that_is_missing_or_damaged_is_made_again(directory):
    path, schema = directory / "index.npz", store.Schema(C)
    whole, data = path.read_bytes(), store.FrameStore(directory)._data
    rng = np.random.default_rng(0)
    for byte in rng.permutation(len(whole))[:400]:
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        assert read_index(path, data, schema) is None
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert read_index(path, data, schema) is None
    for _ in ("damaged", "missing"):
        assert_same(store.FrameStore(directory)[3], make_record(3))
        assert path.read_bytes() == whole
        path.unlink()


@pytest.mark.parametrize("error", [PermissionError, OSError, UserError])
def test_a_folder_that_cannot_be_written_is_read_without_its_index(directory, monkeypatch, error):
    (directory / "index.npz").unlink()

    def refuse(path, index):
        raise error("read-only")

    monkeypatch.setattr(store, "write_index", refuse)
    assert_same(store.FrameStore(directory)[3], make_record(3))
    assert not (directory / "index.npz").exists()


def test_a_store_with_an_index_reads_no_head(whole, monkeypatch):
    monkeypatch.setattr(store, "scan_shards", None)
    monkeypatch.setattr(record_lib, "locate", None)
    assert_same(store.FrameStore(whole)[3], make_record(3))


def test_an_index_older_than_a_shard_is_made_again_or_named(directory):
    schema = store.Schema(C)
    other = make_record(2)._replace(video_id="other")  # three frames instead of four
    store.write_shard(directory, 2, 3, [other, make_record(4)], schema)
    frames = store.FrameStore(directory)
    assert frames.video_ids[3] == "other"
    assert_same(frames[3], other)
    same_size = make_record(6)._replace(video_id="other")
    store.write_shard(directory, 2, 3, [same_size, make_record(4)], schema)
    frames = store.FrameStore(directory)
    for read in READS:
        with pytest.raises(UserError, match="index.npz must match the shards .*-00002-.*delete"):
            read(frames, 3)
    assert_same(frames[4], make_record(4))


def test_another_array_is_one_more_field(tmp_path, monkeypatch):
    """A second input, with frames of its own kind, is written, indexed, read and known to TFDS."""

    class WithAudio(store.Schema):
        @functools.cached_property
        def fields(self):
            audio = record_lib.Field("audio", np.dtype("<f4"), (None, 3), "Sound of each frame.")
            fields = dict(super().fields)
            return {"times_F": fields.pop("times_F"), "audio_FA": audio, **fields}

    Record = collections.namedtuple("Record", [*store.FrameRecord._fields, "audio_FA"])
    audio_FA = np.arange(12, dtype=np.float32).reshape(4, 3)
    record = Record(*make_record(3), audio_FA)
    monkeypatch.setattr(store, "FrameRecord", Record)
    monkeypatch.setattr(store, "Schema", WithAudio)
    store.write_shard(tmp_path, 0, 1, [record], WithAudio(C))
    store.write_metadata(tmp_path, 1, WithAudio(C), INFO)
    assert_same(store.FrameStore(tmp_path)[0], record)
    assert metadata.features_dict(WithAudio(C))["audio"].shape == (None, 3)
    with pytest.raises(ValueError, match=r"audio of .* \(4, 3\), got .* \(3, 3\)"):
        store.write_shard(tmp_path, 0, 1, [record._replace(audio_FA=audio_FA[:3])], WithAudio(C))


def test_records_have_the_bytes_of_earlier_versions(tmp_path):
    """The shards of commit be6e33a, read and written again."""
    with tarfile.open(pathlib.Path(__file__).parent / "fixtures" / "stored_run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    (directory,) = (tmp_path / "clips" / "features").iterdir()
    frames = store.FrameStore(directory)
    records = iter(frames[i] for i in range(len(frames)))
    for number, length in enumerate(np.bincount(frames._facts["shard"])):
        some = itertools.islice(records, int(length))
        path = store.write_shard(tmp_path, number, 2, some, frames.schema)
        assert path.read_bytes() == (directory / path.name).read_bytes()


SHARD = "frames-train.tfrecord-00001-of-00003"
INFO_ERROR = "extractor.json must be as it was written"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (SHARD, None, f"{SHARD} is missing; run preprocessing again"),
        ("extractor.json", None, "needs extractor.json"),
        ("features.json", None, "needs features.json"),
        ("dataset_info.json", None, "needs dataset_info.json"),
        ("extractor.json", lambda text: "", INFO_ERROR),
        ("extractor.json", lambda text: "[]", INFO_ERROR),
        ("extractor.json", lambda text: "{}", INFO_ERROR),
        ("extractor.json", lambda text: text[:-20], INFO_ERROR),
        ("extractor.json", lambda text: text.replace("5.0", "6.0"), INFO_ERROR),
        ("extractor.json", lambda text: text.replace("random", "imagenet"), INFO_ERROR),
    ],
)
def test_what_is_missing_or_damaged_is_named(directory, name, change, message):
    path = directory / name
    path.write_text(change(path.read_text())) if change else path.unlink()
    with pytest.raises(UserError, match=message):
        store.FrameStore(directory)


def test_a_rebuilt_shard_makes_the_folder_whole(directory):
    path = store.shard_path(directory, 2, 3)
    before = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name} is missing; run preprocessing again"):
        store.write_metadata(directory, 3, store.Schema(C), INFO)
    store.write_shard(directory, 2, 3, [make_record(3), make_record(4)], store.Schema(C))
    assert path.read_bytes() == before
    # Writing the metadata also removes the files of interrupted writers.
    leftover = directory / ".frames-train.tfrecord-00001-of-00003.12ab34cd.tmp"
    leftover.write_bytes(b"half a shard")
    (directory / "notes.txt").write_text("mine")
    store.write_metadata(directory, 3, store.Schema(C), INFO)
    assert not leftover.exists() and (directory / "notes.txt").exists()
    assert_same(store.FrameStore(directory)[4], make_record(4))


def test_unknown_folders_and_videos_in_two_shards_or_none_are_named(whole, tmp_path):
    schema = store.Schema(C)
    for index in range(2):
        store.write_shard(tmp_path, index, 2, [make_record(0)], schema)
    store.write_metadata(tmp_path, 2, schema, INFO)
    with pytest.raises(UserError, match="vidéo/0 is in several"):
        store.FrameStore(tmp_path)
    with pytest.raises(UserError, match="must be a folder of shards, got .*nowhere; run prep"):
        store.FrameStore(tmp_path / "nowhere")
    with pytest.raises(UserError, match="needs features in .*, no-1, no-2 are missing"):
        store.FrameStore(whole).rows(["vidéo/1", "no-1", "no-2"])


@pytest.mark.parametrize("read", READS)
def test_shards_of_another_schema_are_found(directory, read):
    schema = store.Schema(C + 1)
    records = [make_record(3, num_channels=C + 1), make_record(4, num_channels=C + 1)]
    path = store.write_shard(directory, 2, 3, records, schema)
    with pytest.raises(tfrecord.DamagedRecordError) as caught:
        frames = store.FrameStore(directory)
        read(frames, 3)
    assert caught.value.path == path


def test_empty_store(tmp_path):
    frames = store.FrameStore(write_store(tmp_path / "a", lengths=(0, 0)))
    assert (len(frames), frames.video_ids, frames.max_frames) == (0, (), 0)
    assert frames.rows([]).tolist() == []


@pytest.mark.parametrize(
    "change, message",
    [
        ({"video_id": ""}, "needs a video_id"),
        ({"codes_FMC": np.zeros((0, M, C), np.uint8)}, r"\(2, 64, 7\), got .* \(0, 64, 7\)"),
        ({"codes_FMC": np.zeros((2, M, C + 1), np.uint8)}, r"\(2, 64, 7\), got .* \(2, 64, 8\)"),
        ({"codes_FMC": np.zeros((2, M, C), np.float32)}, "must be finite uint8 .* got float32"),
        ({"scale_C": np.ones(C + 1, np.float32)}, r"scale of .* must be finite .* shape \(7,\)"),
        ({"scale_C": np.full(C, np.nan, np.float32)}, "scale of .* must be finite float32"),
        ({"offset_C": np.zeros(C)}, "offset of .* must be finite float32 .* got float64"),
        ({"times_F": np.zeros(1, np.float32)}, r"codes of .* \(1, 64, 7\), got .* \(2, 64, 7\)"),
        ({"times_F": np.zeros(2)}, "times of .* must be finite float32 .* got float64"),
    ],
)
def test_records_must_fit_the_schema(tmp_path, change, message):
    record = make_record(1)._replace(**change)
    with pytest.raises(ValueError, match=message):
        store.write_shard(tmp_path, 0, 1, [record], store.Schema(C))


def test_index_of_a_shard_must_be_in_range(tmp_path):
    with pytest.raises(ValueError, match=r"in \[0, 3\), got 3"):
        store.shard_path(tmp_path, 3, 3)
