"""Everything that moves blocks and drives a failback."""
