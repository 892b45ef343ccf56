"""Chaos: the real service as processes that die, on a world that notices everything.

Run by `python -m chaos`; no part of the product.
"""
