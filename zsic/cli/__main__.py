"""`python -m zsic.cli`."""

from zsic.cli import main

main()
