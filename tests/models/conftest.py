"""The checkpoints of `tests/support/checkpoints.py`, as fixtures."""

from support.checkpoints import make_checkpoint, one_thread, pictures, tiny_checkpoint, tiny_checkpoints

__all__ = ["make_checkpoint", "one_thread", "pictures", "tiny_checkpoint", "tiny_checkpoints"]
