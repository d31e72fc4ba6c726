"""The helper process: work on a store's files that must not stop the server's loop.

| module | lives in | holds |
|---|---|---|
| `process` | server | `HelperProcess`, the port's real side |
| `main` | helper | takes requests and forks a child for each |
| `work` | child, tests, simulator | preparing segments, snapshots, pruning, projecting |

A request is done by a forked child, so the memory of a snapshot is given back when it is
taken, and preparing the next segment never waits for one.  What may not live here: what a
snapshot or a history is (`snapshot`, `history`).
"""
