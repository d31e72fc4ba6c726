"""The report of a check: what was looked at, how far, and what was found.

What lives here: counterexamples told in words, diagrams, Markdown, HTML, JSON and JUnit XML.
What may not: checking.
"""
