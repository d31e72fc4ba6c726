"""The benchmark itself, and the ratios that no change may spoil."""
