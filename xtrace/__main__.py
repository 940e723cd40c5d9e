"""The `xtrace` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the only place that ends the program."""
    # Worker processes import this module too, and need nothing of the command line.
    from xtrace.cli import run

    sys.exit(run())


if __name__ == "__main__":
    main()
