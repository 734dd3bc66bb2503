"""The images of an output that are most like a text or a picture, by the embeddings that it keeps; no Ray."""

from zsic.search.searching import Found, Hit, SearchSpec, search

__all__ = ["Found", "Hit", "SearchSpec", "search"]
