"""Bytes in and out: sources, and the commit protocol of the output.  No Ray, no torch."""
