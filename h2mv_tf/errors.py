"""What a user can mend."""


class UserError(ValueError):
    """Wrong input, told in one line: what happened, what was expected, what to do.

    The commands print it without a traceback and exit with status 2.
    """
