"""Programs beside the package: benchmarks."""
