"""Isthmus: one gateway in front of every model a company serves."""
