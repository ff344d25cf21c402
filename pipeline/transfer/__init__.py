"""The two pipelines: export (disk to store) and restore (store to disk), and what they remember."""
