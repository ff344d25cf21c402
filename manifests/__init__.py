"""What a recovery point is: hardware model, disk images, index, encode and decode, catalogue."""
