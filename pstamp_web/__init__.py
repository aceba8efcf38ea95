"""The web service: pages for people, JSON for programs, the data store, and the pages that old programs know.

Thin, as the commands are: a request's values -> one call of the library -> a page. No SQL, no FITS, no rules here.
"""
