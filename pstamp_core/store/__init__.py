"""The database of the server: tables, queues, claims, and `fire`, the one way to change a state."""
