"""`python -m zsic` is `zsic`."""

from zsic.cli import main

main()
