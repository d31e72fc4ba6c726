"""The page: what a browser loads, as it is served; no code of Python."""
