"""Load tests of a served model: `run` a scenario, draw the capacity `curve`, `soak`, `compare` with another generator.

    loadtest.py run score            one of loadtests/scenarios, or a file
    loadtest.py curve                two minutes: the capacity curve, then half of the capacity
    loadtest.py soak                 ten minutes at half of the capacity: memory, loop stalls
    loadtest.py compare              the same rates by k6, and a closed loop by h2load

Ends with 0 if the objectives were held, 1 if not, 3 if the generator could not keep its own schedule.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # after the installed packages, which are what is measured

from loadtests.load import commands


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=commands.COMMANDS)
    parser.add_argument("scenario", nargs="?", help="a name of loadtests/scenarios, or a YAML file")
    parser.add_argument("--seconds", type=float, help="of the run, or of each step, in place of the scenario's")
    parser.add_argument("--rate", type=float, help="requests a second, in place of the scenario's share of capacity")
    parser.add_argument("--rows", type=int, default=300_000, help="events in a graph before the load")
    parser.add_argument("--workers", type=int, help="server processes on one port, in place of the scenario's")
    parser.add_argument("--processes", type=int, help="sender processes, in place of the scenario's")
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        sys.exit(commands.COMMANDS[options.command](options))
    except ValueError as error:
        sys.exit(f"loadtest: {error}")


if __name__ == "__main__":
    main()
