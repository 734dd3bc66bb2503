"""The checkpoints of `tests/checkpoints.py`, as fixtures."""

from checkpoints import make_checkpoint, one_thread, pictures, tiny_checkpoint, tiny_checkpoints

__all__ = ["make_checkpoint", "one_thread", "pictures", "tiny_checkpoint", "tiny_checkpoints"]
