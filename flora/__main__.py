"""`python -m flora`, the same as `flora`."""

from flora.cli.main import main

main()
