"""Sensor sizes of iniVation's cameras, by their names in the headers of AEDAT files."""

from __future__ import annotations

import re

from slowfast.datasets.dvs.formats.base import Sensor

DVS128 = (128, 128)
# Camera, as it is found in a name without case and punctuation, and its sensor height and width.
CAMERAS: dict[str, Sensor] = {
    "dvs128": DVS128,
    "dvs132s": (104, 132),
    "davis128": DVS128,
    "davis208": (192, 208),
    "davis240": (180, 240),
    "davis346": (260, 346),
    "davis640": (480, 640),
    "dvxplorerlite": (240, 320),
    "dvxplorer": (480, 640),
}


def sensor_of_camera(text: str) -> Sensor | None:
    """Return the sensor size of the first camera that a text names; None if it names none."""
    name = re.sub(r"[^a-z0-9]", "", text.lower())
    return next((size for camera, size in CAMERAS.items() if camera in name), None)
