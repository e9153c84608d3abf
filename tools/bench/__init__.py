"""Benchmarks: one program per question; each prints one table and writes it as JSON."""
