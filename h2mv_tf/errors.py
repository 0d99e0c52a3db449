"""What a user can mend."""


class UserError(ValueError):
    """Wrong input, told in one line: what happened, what was expected, what to do.

    The commands print it without a traceback and exit with status 2; a notebook shows
    the line alone.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows."""
        return [f"{type(self).__name__}: {self}"]
