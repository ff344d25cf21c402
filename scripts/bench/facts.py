"""Facts: on what machine and with which versions figures were taken."""

import os
import platform
import sys
import time
from pathlib import Path

from scripts.bench import tool


def machine() -> dict[str, object]:
    """Processor, cores, memory in bytes, load, kernel, Python and the commit of this checkout."""
    model = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "model name: unknown")
    memory = next(line for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "processor": model.partition(":")[2].strip(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": int(memory.split()[1]) * 1024,
        "load": os.getloadavg(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": tool.version("git", "-C", str(tool.ROOT), "describe", "--always", "--dirty"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
