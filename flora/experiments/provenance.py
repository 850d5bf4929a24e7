"""Where a number came from: commit, machine, versions; and the records under results/."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from flora import __version__
from flora.files import write_text

PACKAGES = ("torch", "numpy", "rasterio", "accelerate", "torchmetrics")


def provenance() -> dict[str, Any]:
    """Commit, date, hardware and versions of this run, as plain values.

    The commit ends in "+changes" where tracked files under flora/ or benchmarks/ differ from it.

    Example:
        >>> from flora.experiments.provenance import provenance
        >>> sorted(provenance())
        ['commit', 'date', 'hardware', 'versions']
    """
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {"python": platform.python_version(), "flora": __version__}
        | {name: version(name) for name in PACKAGES},
    }


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record with its provenance as indented JSON.

    Raises:
        FloraError: If the file cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from flora import load_record
        >>> from flora.experiments.provenance import write_record
        >>> write_record(Path("runs/answer.json"), {"answer": 42})
        >>> load_record("answer", folder=Path("runs"))["answer"]
        42
    """
    text = json.dumps({**record, "provenance": provenance()}, indent=1) + "\n"
    write_text(path, text)


def _commit() -> str | None:
    """The commit of the source tree, or None where flora was installed without one."""
    source = Path(__file__).resolve().parents[2]
    git = ["git", "-C", str(source)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    if head.returncode:
        return None
    top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True)
    if Path(top.stdout.strip()).resolve() != source:
        return None  # installed inside somebody else's repository
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", "flora", "benchmarks"], capture_output=True, text=True
    )
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def _processor() -> str:
    """The processor's name as Linux gives it, else what Python knows."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
