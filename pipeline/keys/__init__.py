"""Keys of an encrypted repository: what opens a slot, the ring inside, and what this host knows of repositories."""
