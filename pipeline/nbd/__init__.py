"""A client of the Network Block Device protocol, and qemu-nbd started for one image.

Protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""
