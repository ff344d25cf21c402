"""Collection: what no recovery point needs any more is deleted, while writers write."""
