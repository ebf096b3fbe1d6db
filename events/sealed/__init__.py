"""Sealed actors: what is encrypted, and how it is erased (S29)."""
