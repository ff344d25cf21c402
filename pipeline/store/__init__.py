"""Chunk store: a small interface over any S3-compatible bucket or directory, and layers that wrap it."""
