"""Errors that a person can act on."""


class MidnightError(Exception):
    """Something asked for can't be done.

    The message is one line: which file or key, what is wrong with it, what to do about it.
    The command line and the workflow's scripts print it without a traceback; scripts exit with `status`.
    """

    status = 1
    permanent = False  # whether trying again is vain


class ConfigError(MidnightError):
    """A configuration file, a recipe or a manifest is not what it should be. Trying again is vain."""

    status = 78  # EX_CONFIG
    permanent = True

    @property
    def lines(self) -> list[str]:
        """The problems, a line each, without the head that several have."""
        first, *rest = str(self).splitlines()
        return [line.strip() for line in rest] or [first]


class GivenUpError(MidnightError):
    """Too many attempts at the same thing came to nothing. Trying again is vain until somebody has looked."""

    permanent = True


class ServiceError(MidnightError):
    """A remote service (GDC, a model hub) did not answer as it should."""


class UnreadableError(MidnightError):
    """A file can't be read.

    Attributes:
        errno: the system's error number; 0 where the system has no complaint, or none is known.
    """

    errno: int = 0
