"""The one error that the command line shows as a sentence."""


class UserError(ValueError):
    """What a person can mend: the message says the rule, the value and the remedy.

    The command lines print the message alone and exit with status 2; any other exception is a
    defect of this package and keeps its traceback.
    """


class DivergedError(UserError):
    """A loss or its gradient is not finite: the settings' doing, not the machine's."""
