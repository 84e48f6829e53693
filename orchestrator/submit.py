"""The script for ``ray submit``, which copies this one file to the head of a cluster and runs it there alone.

``ray submit cluster.yaml orchestrator/submit.py -- sweep search_spaces/quickstart.yaml`` does on the head what
``distillery sweep search_spaces/quickstart.yaml`` does here. The project is installed there by ``cluster.yaml``, from
the folder that ``DISTILLERY_HOME`` names, ``~/distillery`` by default; paths on the command line are relative to it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run the command line in the project's folder, on the cluster that this machine is the head of.

    Args:
        arguments: what stands behind ``--``.

    Returns:
        The exit status.
    """
    home = Path(os.environ.get("DISTILLERY_HOME", "~/distillery")).expanduser()
    if not (home / "orchestrator").is_dir():
        print(
            f"{home} doesn't hold the project; set DISTILLERY_HOME, or see file_mounts in cluster.yaml", file=sys.stderr
        )
        return 2
    os.chdir(home)
    sys.path.insert(0, str(home))
    os.environ.setdefault("RAY_ADDRESS", "auto")
    from orchestrator.cli import main as command_line

    return int(command_line(arguments) or 0)


if __name__ == "__main__":
    # `ray submit` passes the separator on.
    sys.exit(main([argument for at, argument in enumerate(sys.argv[1:]) if (at, argument) != (0, "--")]))
