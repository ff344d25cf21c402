"""What lets users in, each with its undo: one kind a file."""
