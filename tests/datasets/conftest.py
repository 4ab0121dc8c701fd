"""Fixtures of downloads, for the tests of transfers and of the CMU database."""

from download_server import clock, server, target

__all__ = ["clock", "server", "target"]
