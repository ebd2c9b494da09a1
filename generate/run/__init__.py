"""The run folder: prepare it, follow it, resume it."""
