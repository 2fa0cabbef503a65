"""Run the benchmarks, all of them or those that are named.

``python -m benchmarks [NAME]...``; the names are those of :data:`MODULES`.
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
    "faults": "faults",
    "script": "script",
}


def main() -> None:
    """Run what the command line names."""
    names = sys.argv[1:] or list(MODULES)
    unknown = set(names) - set(MODULES)

    if unknown:
        sys.exit(f"There is no {', '.join(unknown)}; there are {', '.join(MODULES)}.")

    for name in names:
        importlib.import_module(f"benchmarks.{MODULES[name]}").main()


if __name__ == "__main__":
    main()
