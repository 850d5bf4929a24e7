"""The one error that a wrong input raises, and the one warning; both carry their parts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

Spelling = Callable[[str, Any], str]
"""How an argument is written: its name, and its value or `NAME_ALONE`."""

NAME_ALONE: Any = type("NameAlone", (), {"__repr__": lambda _: "NAME_ALONE"})()


def in_python(name: str, value: Any) -> str:
    """An argument as Python writes it.

    Example:
        >>> from flora.errors import NAME_ALONE, in_python
        >>> in_python("grid", "utm"), in_python("overwrite", True), in_python("grid", NAME_ALONE)
        ('grid="utm"', 'overwrite=True', 'grid')
    """
    if value is NAME_ALONE:
        return name
    return f"{name}={json.dumps(value) if isinstance(value, str) else repr(value)}"


class Given(NamedTuple):
    """What was passed for an argument, for the message of an error.

    Attributes:
        argument: Its name, as Python spells it; empty for a file that nobody named.
        value: What was passed.
    """

    argument: str
    value: object


class _Said(Exception):
    """A message made of parts, so that Python and the shell each spell arguments their own way."""

    def __init__(
        self,
        expected: str = "",
        *,
        argument: str | Given = "",
        value: object = None,
        remedy: str = "",
        **options: Any,
    ) -> None:
        if isinstance(argument, Given):
            argument, value = argument
        self.argument, self.value = argument, value
        self.expected, self.remedy, self.options = expected, remedy, options
        super().__init__(self.spelled(in_python))

    def spelled(self, spell: Spelling) -> str:
        """The message, its arguments written by `spell`."""
        name = spell(self.argument, NAME_ALONE) if self.argument else ""
        subject = f"{name} {'' if self.value is None else self.value}".strip()
        text = f"{subject}: " * bool(subject) + self._filled(self.expected, spell)
        return f"{text}; {self._filled(self.remedy, spell)}" if self.remedy else text

    def _filled(self, text: str, spell: Spelling) -> str:
        """Put the options in: only `{name}` of a known option is a place, other braces stay."""
        for name, value in self.options.items():
            text = re.sub(rf"\{{{name}\}}", lambda _, n=name, v=value: spell(n, v), text)  # type: ignore[misc]
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        parts = {"argument": self.argument, "value": self.value, "remedy": self.remedy}
        return _rebuilt, (type(self), self.expected, parts | self.options)


def _rebuilt(kind: type[Any], expected: str, parts: dict[str, Any]) -> Any:
    return kind(expected, **parts)


class FloraError(_Said, ValueError):
    """A wrong input, refused at the boundary.

    The message is made of its parts, "argument value: expected; remedy". The command line prints
    it as one line, with arguments spelled as its options; everything else that is raised is a
    defect of the library.

    Args:
        expected: What is wrong, and what was expected.
        argument: Name of the argument, as Python spells it; or a `Given`, name and value.
        value: What was received.
        remedy: What to do.
        options: Arguments that `expected` or `remedy` name in braces, with the value to pass;
            `NAME_ALONE` for the name without a value.

    Example:
        >>> from flora import FloraError, open_dataset
        >>> try:
        ...     open_dataset("simulated", None, "holdout")
        ... except FloraError as error:
        ...     print(error)
        simulated: no split 'holdout'; choose train, valid, test
        >>> print(FloraError("exists", argument="html", value="a.html", remedy="pass {overwrite}",
        ...                  overwrite=True))
        html a.html: exists; pass overwrite=True
    """


class FloraWarning(_Said, UserWarning):
    """An input that can be used but is probably not what its owner meant; see `FloraError`.

    Example:
        Let what is merely doubtful stop a program too:

        >>> import warnings
        >>> from flora import FloraWarning
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", FloraWarning)
        ...     warnings.warn("VV is darker than VH on average", FloraWarning)
        Traceback (most recent call last):
            ...
        flora.errors.FloraWarning: VV is darker than VH on average
    """
