"""Programs that use the package: importers, export, inspection, launchers and benchmarks."""
