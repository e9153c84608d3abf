import os
import pickle

import numpy as np
import pytest

from uhman_jax.shards import tfrecord

RECORDS = [b"", b"one", bytes(range(256)) * 5, b"x" * 70_000]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.tfrecord"
    tfrecord.write(path, RECORDS)
    return path


def read_all(path):
    data, found = tfrecord.map_file(path), []
    for offset, payload, crc in tfrecord.records(data, path):
        assert tfrecord.verify(data, offset, path, [payload]) == crc
        found.append(bytes(payload))
    return found


def test_reads_what_was_written_and_where(path, tmp_path):
    assert read_all(path) == RECORDS
    offsets = [offset for offset, *_ in tfrecord.records(tfrecord.map_file(path), path)]
    sizes = [8 + 4 + len(record) + 4 for record in RECORDS]
    assert offsets == [0, *np.cumsum(sizes)[:-1].tolist()]
    assert os.path.getsize(path) == sum(sizes)
    with pytest.raises(ValueError, match="read-only"):
        tfrecord.map_file(path)[0] = 1
    data = tfrecord.map_file(path)
    _, (offset, payload, crc), *_ = tfrecord.records(data, path)
    assert tfrecord.verify(data, offset, path, [payload[:1], payload[1:]]) == crc
    with pytest.raises(tfrecord.DamagedRecordError, match="3 bytes long"):
        tfrecord.verify(data, offset, path, [payload[:1]])
    tfrecord.write(tmp_path / "empty", [])
    assert read_all(tmp_path / "empty") == []


def test_tensorflow_reads_it_and_writes_the_same_bytes(path, tmp_path):
    tf = pytest.importorskip("tensorflow")
    got = [x.numpy() for x in tf.data.TFRecordDataset(os.fspath(path))]
    assert got == RECORDS
    theirs = tmp_path / "theirs"
    with tf.io.TFRecordWriter(os.fspath(theirs)) as writer:
        for record in RECORDS:
            writer.write(record)
    assert theirs.read_bytes() == path.read_bytes()


@pytest.fixture
def two(tmp_path):
    """A file, its bytes and where its second record begins."""
    tfrecord.write(tmp_path / "a", [b"first", b"second one"])
    return tmp_path / "a", (tmp_path / "a").read_bytes(), 8 + 4 + len(b"first") + 4


def test_every_flipped_bit_is_found(two):
    path, whole, second = two
    for byte in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[byte] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(tfrecord.DamagedRecordError, match="checksum") as caught:
                read_all(path)
            assert caught.value.path == path
            assert caught.value.offset == (0 if byte < second else second)


def test_every_truncation_is_found(two):
    path, whole, second = two
    for size in set(range(1, len(whole))) - {second}:
        path.write_bytes(whole[:size])
        with pytest.raises(tfrecord.DamagedRecordError, match="the file ends within") as caught:
            read_all(path)
        assert caught.value.offset == (0 if size < second else second)
    path.write_bytes(whole[:second])  # whole: the store knows how many records belong there
    assert read_all(path) == [b"first"]


def test_message_names_file_byte_and_remedy(path):
    with open(path, "r+b") as file:
        file.seek(16 + 8 + 4)  # the first data byte of the second record
        file.write(b"O")
    with pytest.raises(tfrecord.DamagedRecordError) as caught:
        read_all(path)
    message = str(caught.value)
    assert str(path) in message and "at byte 16 is damaged" in message
    assert "delete this file and run preprocessing again" in message
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.path, copy.offset) == (message, path, 16)


def test_failing_writer_leaves_the_old_file_and_nothing_else(path):
    before = path.read_bytes()

    def records():
        yield b"new"
        raise RuntimeError("decoder gone")

    with pytest.raises(RuntimeError, match="decoder gone"):
        tfrecord.write(path, records())
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
