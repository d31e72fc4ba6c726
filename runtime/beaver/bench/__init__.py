"""`beaver bench`: what this machine gives, beside a raw sync probe and peers of the same run.

`rows` is the table, `subject` what is measured of every queue, `served` Beaver as one of
them, `inside`, `stores` and `programs` what is measured of Beaver alone, `peers` the others,
`run` the rounds, `targets` the verdicts, `report` and `plot` what comes out.

Machines are noisy: figures to quote are ratios to the probe or to a peer of the same run.
"""
