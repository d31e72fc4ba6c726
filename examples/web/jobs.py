"""The jobs of the web applications beside this file; workers import nothing else.

    beaver run -A jobs:queue

The web process finds the server by `BEAVER_URL` and `BEAVER_TOKEN`, or, on the same machine, by
`BEAVER_DATA`.
"""

from beaver import Beaver

queue = Beaver()


@queue.job(max_attempts=3, timeout="30s")
def send_receipt(order: int, to: str) -> str:
    return f"receipt for {order} sent to {to}"
