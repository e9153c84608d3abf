"""Converts videos to region features: decoding, a backbone, shards and their ledger.

Only this package imports TensorFlow, and only when it loads `extractor`: decoding, the ledger and
the check for missing shards do not need it. Run it with `python -m uhman_jax.preprocess --help`.
"""
