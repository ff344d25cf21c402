"""What a run may wait for: one kind a file."""
