"""What importing costs, above Flask and Mixpanel's library."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

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

    with tempfile.TemporaryDirectory() as compiled:
        for _ in range(16):
            for module, seen in times.items():
                seen.append(_import(module, compiled))

    for module, seen in times.items():
        # The first one compiles.
        del seen[0]
        print(
            f"{module:24}{statistics.median(seen):8.1f}{min(seen):10.1f}"
            f"  {MODULES[module]}"
        )


def _import(module: str, compiled: str) -> float:
    """Import a module in a process of its own, which finds it compiled."""
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    code = _CODE.format(module=module)
    command = [sys.executable, "-c", code]
    return float(subprocess.check_output(command, text=True, env=environ)) * 1000
