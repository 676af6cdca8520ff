"""Sockets in. Thin: each ends where the pipeline begins."""
