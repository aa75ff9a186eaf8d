"""What a benchmark ran on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import av
import cv2
import psutil
import torch

from slowfast.runtime.cores import usable_cores


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores, threads, memory, versions, how busy the machine is, and the GPU where one is used."""
    described = {
        "processor": _processor(),
        "cores": usable_cores(),
        "threads of torch": torch.get_num_threads(),
        "memory (GiB)": round(psutil.virtual_memory().total / 2**30, 1),
        "load average before": round(psutil.getloadavg()[0], 2),  # above 0 others are at work and slow it down
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
        "cv2": cv2.__version__,
    }
    if device.type == "cuda":
        described["GPU"] = torch.cuda.get_device_name(device)
    return described


def _processor() -> str:
    """The processor's name; Linux tells it in a file of its own."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
