"""Learning rates over the steps of a fit or of the run, in steps or in fractions of the fit.

They are Keras schedules: for ``fit(learning_rate=…)``, for
``optimizer.learning_rate = …``, and in an optimizer's constructor.
"""

from keepfit.schedules.base import Schedule
from keepfit.schedules.joined import PerFit, WarmUp
from keepfit.schedules.shapes import Cosine, Linear, OneCycle, Piecewise

__all__ = ["Cosine", "Linear", "OneCycle", "PerFit", "Piecewise", "Schedule", "WarmUp"]
