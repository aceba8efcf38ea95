"""Thin commands: arguments, one library call, an exit code."""
