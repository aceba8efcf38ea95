"""The postage stamp server as a library: requests, jobs and dependents as state machines over a database.

The layers are those of the README; nothing in here prints, exits, or reads the environment.
"""

__version__ = "0.1.0"
