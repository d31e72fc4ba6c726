"""Dispatch: time, free slots and outcomes become commands, and attempts go to workers.

What lives here is soft state: which worker has which attempts, since when, and why a worker
was killed (`slots_view`).  Nothing of it is logged; after a crash all of it is rebuilt from
the state, the slots and BOOT.

One attempt, from this side:

1. `dispatching` picks a job for a free slot, just before a commit; DISPATCH joins that commit.
2. Once DISPATCH is durable the attempt goes to the worker.  Where its queue has opted out of
   that, it goes at once, unless something else of the worker waits for a sync.
3. The worker's outcome becomes a command with the attempt's token (`outcome_handler`), and its
   slot is free.
4. Or the limit passes, or a cancel is logged: the worker is killed and reaped (softly told
   first where the executor can), and only then the log says so (`time_limits`).
5. Or the worker dies: what it had started is charged, what it had not is given back
   (`supervision`).

Remote workers pull instead (`pulls`), hold what they got by a lease (`leases`), and send their
outcomes one by one (`reports`).

`controller` is the door: it puts the parts together, and nobody else builds them.

What may not live here: anything that safety rests on (the model refuses what is wrong),
processes, pipes and files (`workers`, behind `ports.Pool`), and user code.  So the simulator
runs this folder as it is, over a pool of its own.
"""
