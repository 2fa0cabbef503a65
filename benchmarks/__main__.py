"""Run the benchmarks, all of them or those that are named.

``python -m benchmarks [NAME]...``; the names are those of :data:`MODULES`.
``python -m benchmarks --against REVISION`` compares what requests cost here and there;
``python -m benchmarks --steps`` says what they consist of;
``python -m benchmarks --peers`` measures the table of the README.
"""

from __future__ import annotations

import importlib
import sys

MODULES = {
    "requests": "request_cost",
    "hand_overs": "hand_overs",
    "imports": "import_time",
    "user_agents": "agent_cost",
    "delivery": "delivery",
    "import": "history",
    "faults": "faults",
    "script": "script",
}


def main() -> None:
    """Run what the command line names."""
    match sys.argv[1:]:
        case ["--against", revision]:
            return importlib.import_module("benchmarks.against").main(revision)
        case ["--steps"]:
            return importlib.import_module("benchmarks.steps").main()
        case ["--peers"]:
            return importlib.import_module("benchmarks.comparison").main()
        case given:
            names = given or list(MODULES)

    unknown = set(names) - set(MODULES)

    if unknown:
        sys.exit(f"There is no {', '.join(unknown)}; there are {', '.join(MODULES)}.")

    for name in names:
        importlib.import_module(f"benchmarks.{MODULES[name]}").main()


if __name__ == "__main__":
    main()
