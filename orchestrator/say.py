"""What the driver tells its user."""


def say(line: str) -> None:
    """Print one line at once, also into a pipe."""
    print(line, flush=True)
