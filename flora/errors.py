"""The one error that a wrong input raises, and the one warning."""


class FloraError(ValueError):
    """A wrong input, refused at the boundary.

    The message names the argument, the value received, what was expected and the remedy. The
    command line prints it as one line; everything else that is raised is a defect of the library.
    """


class FloraWarning(UserWarning):
    """An input that can be used but is probably not what its owner meant."""
