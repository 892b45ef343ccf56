"""Lets `python -m pyvatti` be the command line."""

from pyvatti.cli import main

main()
