"""`beaver bench`: what this machine gives, beside a raw sync probe of the same run.

`tasks` is the application that the measured server runs, `measure` holds one function a row
of the table, `report` prints it.  Machines are noisy: figures to quote are ratios to the
probe, which is taken before and after.
"""
