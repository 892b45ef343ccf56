"""Submits polygenic score workflows on sensitive genomes to Kubernetes and leaves nothing behind."""

__version__ = "0.1.0"
