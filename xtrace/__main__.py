"""The `xtrace` command."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line; the only place that ends the program."""
    # Worker processes import this module too, and need nothing of the command line.
    from xtrace.cli import run

    code = run()
    # Searching all that was loaded for cycles before it goes would take a tenth of a second.
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
