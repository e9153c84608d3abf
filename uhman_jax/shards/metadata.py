"""Writes the files that TFDS needs to read a folder of shards: features and description."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uhman_jax.runtime import storage
from uhman_jax.shards import record
from uhman_jax.shards.record import Schema

DATASET, SPLIT, VERSION = "frames", "train", "1.0.0"
FILES = ("features.json", "dataset_info.json")


def features_dict(schema: Schema):
    """Returns the `tfds.features.FeaturesDict` of a record."""
    import tensorflow_datasets as tfds  # its import takes a second; training does not need it

    def tensor(shape, dtype, doc):
        return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes", doc=doc)

    arrays = {
        field.name: tensor(field.shape, field.dtype, field.doc) for field in schema.fields.values()
    }
    return tfds.features.FeaturesDict(
        {
            record.ID: tfds.features.Text(doc="Id of the video."),
            record.HEAD: tensor((4,), np.uint8, "Masked CRC32C of the record before this field."),
            **arrays,
        }
    )


def write(
    directory: str | os.PathLike, lengths: Sequence[int], num_bytes: int, schema: Schema
) -> None:
    """Writes features.json and dataset_info.json, each atomically.

    Args:
        directory: folder of the shards.
        lengths: number of records of each shard.
        num_bytes: total size of the shards.
        schema: schema of the records.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    template = tfds.core.ShardedFileTemplate(
        data_dir=directory, dataset_name=DATASET, split=SPLIT, filetype_suffix="tfrecord"
    )
    identity = DatasetIdentity(
        name=DATASET,
        version=tfds.core.Version(VERSION),
        data_dir=os.fspath(directory),
        module_name="",
    )
    dataset = tfds.core.DatasetInfo(
        builder=identity,
        features=features_dict(schema),
        description="Region features of short videos for hashtag recommendation.",
    )
    dataset.set_file_format("tfrecord")
    split = tfds.core.SplitInfo(
        name=SPLIT, shard_lengths=lengths, num_bytes=num_bytes, filename_template=template
    )
    dataset.set_splits(tfds.core.splits.SplitDict([split]))
    with tempfile.TemporaryDirectory() as folder:
        dataset.write_to_directory(folder)
        for name in FILES:
            with storage.atomic_write(storage.path(directory) / name) as file:
                file.write((Path(folder) / name).read_bytes())
