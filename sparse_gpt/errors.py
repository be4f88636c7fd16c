"""The one exception that means "the user can mend this"."""


class InputError(ValueError):
    """Bad input: a flag, a file or a configuration that cannot work.

    The message is one line that names the value, the limit and the way out. Launch scripts print it
    and exit with code 2; anything else that is raised is a defect and keeps its traceback.
    """
