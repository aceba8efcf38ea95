"""The tables that users send and get: PS1_PS_REQUEST, PS1_PS_RESULTS, their text forms and their checks."""
