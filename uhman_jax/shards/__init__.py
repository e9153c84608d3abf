"""Region features on disk: quantised, in TFRecord shards that TFDS reads too, read at random."""
