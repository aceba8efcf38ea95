"""Image databases: which images match a row, where they lie on the sky, and whether their pixels can be had."""
