"""Fused against stepwise, workload by workload: the check of the rule by which the engine chooses.

``python benchmarks/plans.py``
"""

from __future__ import annotations

from typing import Any

import keepfit  # before keras
import numpy as np
from spine import BATCH, WORKLOADS, compiled, medians


def main() -> None:
    """Print microseconds a step on both plans, and what the engine chooses by itself."""
    print(f"{'workload':<12} {'fused':>9} {'stepwise':>9} {'ratio':>7}  chosen")
    for name, maker in WORKLOADS.items():
        _, shape, steps = maker()
        generator = np.random.default_rng(0)
        x = generator.normal(size=(steps * BATCH, *shape)).astype("float32")
        y = generator.normal(size=(steps * BATCH, 1)).astype("float32")
        options: dict[str, Any] = {"batch_size": BATCH, "verbose": 0}
        runs = [keepfit.Run(compiled(maker), plan=plan) for plan in ("fused", "stepwise")]
        fused, stepwise = medians([lambda run=run: run.fit(x, y, **options) for run in runs], 5)
        with keepfit.Run(compiled(maker)) as free:
            free.fit(x[:BATCH], y[:BATCH], **options)
            chosen = free.recorder.fits[1].plan["plan"]
        for run in runs:
            run.close()
        micro = 1e6 / steps
        print(
            f"{name:<12} {fused * micro:>9.0f} {stepwise * micro:>9.0f} {stepwise / fused:>7.2f}  {chosen}", flush=True
        )


if __name__ == "__main__":
    main()
