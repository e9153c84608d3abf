"""Work with the operating system and the devices: files, signals, locks, processes, mesh."""
