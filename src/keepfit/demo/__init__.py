"""``keepfit demo``: a training that is killed and ends with the same bits as one that was not."""

from keepfit.demo.story import run_demo

__all__ = ["run_demo"]
