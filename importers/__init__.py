"""Target platforms, found through the entry points `failback.importers`."""
