"""Generated chest X-rays in NIH layout, for demonstrations and tests on machines without the real set.

They look like radiographs and are none: findings are planted shapes, and a model trained on them knows nothing of
medicine.
"""

from __future__ import annotations

from xray_trainer.synthetic.write import synthesize

__all__ = ["synthesize"]
