"""`python -m retrieval` is the command `retrieval`."""

from retrieval.cli import main

main()
