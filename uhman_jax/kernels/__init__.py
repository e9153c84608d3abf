"""Products over region features, one implementation per backend."""
