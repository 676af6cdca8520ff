"""Pure decisions: no clock, no I/O, no state of their own."""
