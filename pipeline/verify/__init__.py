"""Data checks: by listing, by reading, by comparing a disk."""
