"""``keepfit.attach``: the model's own ``fit`` goes through a run."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from keepfit import _keras, live
from keepfit.errors import CannotAttach, InvalidArgument
from keepfit.run import Run


def attach(model: Any, directory: str | Path | None = None, **settings: Any) -> Any:
    """Make a model's ``fit`` continuous and, with a folder, durable.

    ``fit``, ``evaluate``, ``predict`` and ``train_on_batch`` of this model go
    through a `Run` from here on; ``model.run`` is the run, and
    ``model.run.close()`` gives the model its own methods back.

    Args:
        model: A compiled Keras model.
        directory: Folder of the run; None keeps the same promises within the process.
        settings: Those of `Run`. Attaching again to the same folder with the same settings changes nothing;
            with others it closes the run and opens it with them.

    Returns:
        The same model.

    Raises:
        InvalidArgument: A setting is unknown or has no meaning.
        CannotAttach: The model's class has a ``fit`` of its own, or another live run has its variables.

    Example:
        >>> import keepfit, keras
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> model = keepfit.attach(model)
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> [model.fit(x, y, epochs=2, verbose=0).epoch for _ in range(2)]
        [[0, 1], [2, 3]]
        >>> model.run
        Run(in memory: 2 fits, 4 epochs, 4 steps)
        >>> model.run.close()
    """
    _check_names(settings)
    if _keras.is_model(model):
        current = live.attached_run(model)
        if current is not None and current.is_the_same(directory, settings):
            return model
        if _keras.trains_itself(model):
            raise CannotAttach(
                f"{type(model).__name__} overrides fit(), and attach() would take its place. Nothing was changed. "
                "Use the run itself: run = keepfit.Run(model, directory); run.fit(...)."
            )
    run = Run(model, directory, **settings)
    live.bind(run)
    return model


def _check_names(settings: dict[str, Any]) -> None:
    known = list(inspect.signature(Run).parameters)[2:]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise InvalidArgument(
            f"attach() has no argument {unknown[0]!r}. Nothing was changed. It takes {', '.join(known)}.",
            argument=unknown[0],
        )
