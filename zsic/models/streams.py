"""What lets threads share a GPU: each has a stream of its own."""

import threading
from contextlib import AbstractContextManager, nullcontext

import torch


class Streams:
    """One stream a thread, made when it is first needed.

    A thread waits for its own stream alone; what others have queued goes on meanwhile.
    """

    def __init__(self, device: str | torch.device) -> None:
        self._device = torch.device(device)
        self._of_thread = threading.local()

    def own(self) -> AbstractContextManager[object]:
        """Queue what this thread gives to the GPU on its own stream; on a CPU there is none."""
        if self._device.type != "cuda":
            return nullcontext()
        if not hasattr(self._of_thread, "stream"):
            self._of_thread.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._of_thread.stream)
