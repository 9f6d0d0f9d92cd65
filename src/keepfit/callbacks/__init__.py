"""Keras's callbacks under keepfit: their memory, their files, their hooks; and the progress a person sees."""

from keepfit.callbacks.book import CallbackMemory, SavedMemories
from keepfit.callbacks.files import drop_backup_and_restore
from keepfit.callbacks.hooks import (
    BatchHooks,
    has_predict_batch_hooks,
    has_test_batch_hooks,
    has_train_batch_hooks,
    may_change_settings,
    may_rewrite_weights,
)
from keepfit.callbacks.memory import Memory, restore, take
from keepfit.callbacks.origin import callback_keys
from keepfit.callbacks.progress import Progress, make_progress
from keepfit.callbacks.stock import depends_on_epoch_numbers, finalize_averages, hold_averages_back

__all__ = [
    "BatchHooks",
    "CallbackMemory",
    "Memory",
    "Progress",
    "SavedMemories",
    "callback_keys",
    "depends_on_epoch_numbers",
    "drop_backup_and_restore",
    "finalize_averages",
    "has_predict_batch_hooks",
    "has_test_batch_hooks",
    "has_train_batch_hooks",
    "hold_averages_back",
    "make_progress",
    "may_change_settings",
    "may_rewrite_weights",
    "restore",
    "take",
]
