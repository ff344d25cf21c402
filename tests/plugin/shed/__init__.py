"""The shed: machines are folders, and run by saying so. Made with what the docstrings of failback say, no more."""
