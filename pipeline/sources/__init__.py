"""Sources that belong to no platform of ours, and how sources are found by name."""
