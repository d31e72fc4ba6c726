"""Other queues, measured in the same run, on the same disk, with the same work.

Each peer is started by the benchmark in a directory of its own, listens on a Unix socket
there and nowhere else, is set up to sync before it acknowledges, and is stopped at the end.
`python3 dev.py peers` installs their Python packages; beanstalkd, redis-server and PostgreSQL
are those of the system.  What is not installed is left out, and the report says so.

`base` has what they share, `work` is what their workers run, and each other module is one
peer: its server, its client and its worker.
"""
