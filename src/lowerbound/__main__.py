"""`python -m lowerbound` is the command line, also under `torchrun`."""

from lowerbound.app.cli.main import main

main()
