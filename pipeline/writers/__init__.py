"""Where blocks go."""
