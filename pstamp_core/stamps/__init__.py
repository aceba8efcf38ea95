"""Pixels: the region of a stamp, reading an image once for many stamps, cutting, writing products."""
