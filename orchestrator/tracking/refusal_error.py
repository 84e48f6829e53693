"""MLflow will never take this operation."""


class RefusalError(Exception):
    """The operation itself is wrong (its file is gone, its run was deleted): it is set aside, and the rest goes on."""
