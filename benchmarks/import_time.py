"""What importing costs, above Flask and Mixpanel's library."""

from __future__ import annotations

import statistics
import subprocess
import sys

from .pairs import heading

_CODE = """
import flask, mixpanel, time
started = time.perf_counter()
import {module}
print(time.perf_counter() - started)
"""

MODULES = {
    "flask_mengpaneel": "at most 20",
    "user_agents": "",
    "posthog": "",
    "segment.analytics": "",
}


def main() -> None:
    """Import each module in processes of their own, in turns."""
    heading(
        "Importing, above flask and mixpanel",
        f"{'':24}{'ms':>8}{'fastest':>10}  to reach",
    )
    times: dict[str, list[float]] = {module: [] for module in MODULES}

    for _ in range(15):
        for module, seen in times.items():
            seen.append(_import(module))

    for module, seen in times.items():
        print(
            f"{module:24}{statistics.median(seen):8.1f}{min(seen):10.1f}"
            f"  {MODULES[module]}"
        )


def _import(module: str) -> float:
    code = _CODE.format(module=module)
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    return float(output) * 1000
