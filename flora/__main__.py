"""`python -m flora`, the same as `flora`."""

from flora.cli import main

main()
