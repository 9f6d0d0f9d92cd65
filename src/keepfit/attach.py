"""``keepfit.attach``: the model's own ``fit`` goes through a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from keepfit import live
from keepfit.errors import CannotAttach
from keepfit.run import Run


def attach(model: Any, directory: str | Path | None = None, **settings: Any) -> Any:
    """Make a model's ``fit`` continuous and, with a folder, durable.

    ``fit``, ``evaluate``, ``predict`` and ``train_on_batch`` of this model go
    through a `Run` from here on; ``model.run`` is the run, and
    ``model.run.close()`` gives the model its own methods back.

    Args:
        model: A compiled Keras model.
        directory: Folder of the run; None keeps the same promises within the process.
        settings: Those of `Run`.

    Returns:
        The same model.

    Raises:
        CannotAttach: The model's class has a ``fit`` of its own, or another live run has its variables.

    Example:
        >>> model = keepfit.attach(model, "runs/digits")  # doctest: +SKIP
        >>> model.fit(x, y, epochs=5)  # doctest: +SKIP
    """
    if isinstance(model, keras.Model):
        current = live.attached_run(model)
        if current is not None and current.is_the_same(directory, settings):
            return model
        if type(model).fit is not keras.Model.fit:
            raise CannotAttach(
                f"{type(model).__name__} overrides fit(), and attach() would take its place. Nothing was changed. "
                "Use the run itself: run = keepfit.Run(model, directory); run.fit(...)."
            )
    run = Run(model, directory, **settings)
    live.bind(run)
    return model
