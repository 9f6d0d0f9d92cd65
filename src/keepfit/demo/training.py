"""The script that the demo runs, kills and runs again; it knows nothing of that.

Run as ``python -m keepfit.demo.training DIRECTORY``.
"""

from __future__ import annotations

import sys

import keepfit  # before keras, so that an installed backend is chosen


def main(directory: str) -> None:
    """Train on handwritten digits in three fits."""
    import keras
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    keras.utils.set_random_seed(7)
    digits = load_digits()
    images = (digits.data / 16.0).astype("float32")
    x, x_test, y, y_test = train_test_split(images, digits.target, test_size=0.25, random_state=0)

    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(96, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(48, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])

    model = keepfit.attach(model, directory)
    for name, epochs, rate in (("start", 12, 2e-3), ("longer", 40, 5e-4), ("polish", 40, 1e-4)):
        model.optimizer.learning_rate = rate
        patience = keras.callbacks.EarlyStopping("val_loss", patience=6, restore_best_weights=True)
        model.fit(
            x,
            y,
            batch_size=32,
            epochs=epochs,
            validation_data=(x_test, y_test),
            callbacks=[patience] if name == "polish" else [Slowly()],
            name=name,
            verbose=2,
        )
    accuracy = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
    print(f"accuracy on {len(np.asarray(y_test))} digits it has not seen: {accuracy:.4f}")


def Slowly() -> object:  # noqa: N802 - stands where a callback class would
    """Return a callback that makes an epoch last long enough to be watched, and killed."""
    import time

    import keras

    return keras.callbacks.LambdaCallback(on_epoch_end=lambda _epoch, _logs: time.sleep(0.06))


if __name__ == "__main__":
    main(sys.argv[1])
