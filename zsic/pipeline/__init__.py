"""The job on Ray; the only package that imports it."""
