"""The product of region features with a matrix, with one implementation per backend."""
