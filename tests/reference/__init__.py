"""Slow, readable oracles of every operation of the core.

They are written from the definitions and for reading, use NumPy only, import nothing of the package and
are never shipped. Each of them can be checked against its formula with a pencil; the fast code is checked
against them.
"""
