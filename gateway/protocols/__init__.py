"""Wire formats: pure functions and classes from bytes to types and back. No sockets, no clock."""
