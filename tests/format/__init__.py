"""The promises of FORMAT.md."""
