"""Videos to region features: decoding, Inception-v3, shards and their ledger.

The only room that imports TensorFlow, and only `extractor` does: decoding, the ledger and the check
whether anything is left to do stay light. Run it with `python -m uhman_jax.preprocess --help`.
"""
