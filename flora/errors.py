"""The one error that a wrong input raises, and the one warning."""


class FloraError(ValueError):
    """A wrong input, refused at the boundary.

    The message names the argument, the value received, what was expected and the remedy. The
    command line prints it as one line; everything else that is raised is a defect of the library.

    Example:
        >>> from flora import FloraError, open_dataset
        >>> try:
        ...     open_dataset("simulated", None, "holdout")
        ... except FloraError as error:
        ...     print(error)
        simulated: no split 'holdout'; choose train, valid, test
    """


class FloraWarning(UserWarning):
    """An input that can be used but is probably not what its owner meant.

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
