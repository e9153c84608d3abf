"""Stores quantised region features in TFRecord shards, for random access and for TFDS."""
