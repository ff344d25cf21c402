"""The one program that runs elsewhere, and how it is told what to do: signed documents in a bucket."""
