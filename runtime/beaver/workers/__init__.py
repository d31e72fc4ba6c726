"""The processes that run user code, and the pool that the server sees of them.

The server never runs user code.  It starts one `zygote`, which imports the application and
forks a worker for each slot; the `pool` speaks with the workers over sockets and with the
zygote about life and death.  What may not live here: decisions about jobs.  The pool
reports facts (an outcome, a process that is gone) and the controller decides.

| module | lives in | holds |
|---|---|---|
| `pool`, `pool_options` | server | `ProcessPool`, the port's real side; what it has to know |
| `starts` | server | what each worker has started, as its slot says it |
| `mailbox` | server | one worker as the pool sees it: sending, recall, outcomes |
| `permits` | server | attempts on their way to a worker, and how they are taken back |
| `outlet`, `zygote_process` | server | sending without waiting; the zygote as the pool sees it |
| `host` | server | what a pool asks of the machine: the real one, behind a port |
| `zygote` | zygote | import once; the server's messages, deaths, what a worker left |
| `family` | zygote | its children as the kernel shows them: fork or spawn, kill, reap |
| `child` | worker | from the fork to the executor |
| `inbox`, `attempts` | worker | taking attempts in; one attempt as a pipeline of steps |
| `one_by_one`, `threads`, `coroutines` | worker | the executors |
| `wire`, `slots` | all | messages and the shared file of started tokens |
| `leftovers`, `apps` | all | what a dead server left; imports |
"""
