"""The specification: TLC over `spec/tla`, Spin over `spec/promela`, and each guard taken out.

What lives here: running the tools and judging what they say.  What may not: an import of the
program: the specification is a second opinion.
"""
