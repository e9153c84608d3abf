"""A trained run, a clip and a profile in; ranked hashtags, and what the model looked at, out."""
