"""Videos to region features: decoding, a backbone, shards and their ledger.

Only this room imports TensorFlow, and only in `extractor` and below: decoding, the ledger and the
check for missing work stay light. Run it with `python -m uhman_jax.preprocess --help`.
"""
