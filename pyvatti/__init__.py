"""Runs polygenic score workflows on sensitive genomes and leaves nothing behind."""

__version__ = "0.1.0"
