"""MLflow did not take something now; it may later."""


class OutageError(Exception):
    """The store is down, full, locked, or refuses us: what was not sent stays in the spool."""
