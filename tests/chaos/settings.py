"""What the environment says of how many stops, and of what."""

from __future__ import annotations

import os
from typing import Final

KILLS: Final = int(os.environ.get("XRAY_CHAOS_KILLS", "3"))
FLAVOR: Final = os.environ.get("XRAY_CHAOS_FLAVOR", "demo-vpod4")
IMAGE: Final = os.environ.get("XRAY_CHAOS_IMAGE", "torch")
assert IMAGE in ("torch", "ipu"), f"XRAY_CHAOS_IMAGE={IMAGE}; expected torch or ipu"
