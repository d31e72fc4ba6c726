"""Logs with right checksums that no server has ever written, one for each rule of the law.

Each is forged from `docs/reference/wal.md` alone, and told as a `story.Story`.  What may not live
here: who has to refuse them (`test_illegal`).
"""
