"""Benchmarks: this program beside the ones people use today, on one machine, against one kind of S3 server.

Run as ``python -m scripts.bench``; see README.md here. Only the standard library is imported while a child is being
measured: the peak memory the kernel reports for a child is never below the peak of the process that started it.
"""
