"""The bench: the gateway beside its peers, under the same load, on the same machine.

One command runs it (`make bench`), prints one table, and writes it to docs/benchmarks.md.

Rules of this room: every figure is a median of alternating runs; a peer that can't be had is a row
that says so; what was started is ended by its id; nothing here is imported by the gateway.
"""
