"""Tidy frames in, Altair charts out."""
