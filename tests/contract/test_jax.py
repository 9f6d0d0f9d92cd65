"""What only JAX's engine can get wrong: where its arrays lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import pytest

import keepfit
from keepfit import held
from tests.models import make

if keras.backend.backend() != "jax":
    pytest.skip("JAX's own", allow_module_level=True)


@pytest.fixture
def _distribution() -> Iterator[None]:
    """A distribution over the devices that there are, if only one."""
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    yield
    keras.distribution.set_distribution(None)


@pytest.mark.usefixtures("_distribution")
def test_training_leaves_variables_where_a_distribution_put_them() -> None:
    """Batches lie as the distribution asks; what is computed from them replaces variables in their own layout."""
    model, x, y = make("plain_dense")

    def layouts() -> list[Any]:
        variables = [*model.variables, *model.optimizer.variables]
        return [held.value(variable).sharding for variable in variables]

    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, epochs=0, validation_data=(x, y), verbose=0)
        before = layouts()
        run.fit(x, y, batch_size=10, epochs=2, validation_data=(x, y), verbose=0)
        run.predict(x)
    assert layouts() == before
