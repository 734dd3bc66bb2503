"""The rules of the job: no Ray, no transformers, no I/O of its own."""
