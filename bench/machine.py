"""What a benchmark ran on, in one line for its table."""

import os
import platform
from importlib import metadata

PACKAGES = ("voxpanel", "torch", "numpy", "scipy", "soxr")


def describe_machine() -> str:
    """Return processor, cores and versions."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    cores = os.cpu_count()
    return f"{platform.machine()}, {cores} cores, Python {platform.python_version()}; {versions}."
