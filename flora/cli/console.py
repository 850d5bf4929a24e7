"""How the command line prints: names of files as they are, whatever characters they hold."""

from __future__ import annotations

from rich.console import Console


def console(error: bool = False) -> Console:
    """A console that wraps nothing and reads neither markup, emoji nor numbers in what it prints.

    Args:
        error: Whether it prints to the error stream.

    Example:
        >>> from flora.cli.console import console
        >>> console().print("flood/[bold]:smile:.tif")
        flood/[bold]:smile:.tif
    """
    return Console(stderr=error, soft_wrap=True, highlight=False, markup=False, emoji=False)
