"""The benchmark: `python -m bench` measures the service against its limits and prints one table.

Every figure is a ratio, a count, CPU time or memory of one run; nothing here is a test.
"""
