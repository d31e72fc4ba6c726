"""Power cuts: the data directory of the real program on a file system that goes dark."""
