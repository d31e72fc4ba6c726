"""Every bound of the model, in one place.

A bound is stated here, enforced by `decide` (as a `Rejection`) or by the reader of the
request (as a `BeaverError`), and tested at, below and above.  Nothing else may live here.
"""

ID_BYTES_MAX = 255
"""UTF-8 bytes of a job id; at least one, no control characters."""

NAME_BYTES_MAX = 200
"""UTF-8 bytes of a task, queue or tag name."""

PAYLOAD_BYTES_MAX = 1 << 20
"""JSON bytes of one payload (default of the configurable limit)."""

PAYLOAD_DEPTH_MAX = 64
"""Nesting of arrays and objects in a payload or a job file."""

RESULT_BYTES_MAX = 1 << 20
"""JSON bytes of one result; a larger one fails the attempt for good."""

ERROR_BYTES_MAX = 8 << 10
"""UTF-8 bytes of an error text; longer ones keep their head and tail."""

TAGS_MAX = 16
"""Tags of one job."""

PRIORITY_MAX = 9
"""Priorities are 0 (first) to 9 (last)."""

PRIORITY_DEFAULT = 5

ATTEMPTS_MAX = 10_000
"""Largest `max_attempts` that a job may ask for."""

ATTEMPTS_DEFAULT = 5

TIMEOUT_MS_DEFAULT = 600_000
TIMEOUT_MS_MAX = 30 * 86_400_000
"""Thirty days: longer work belongs into several jobs."""

SNOOZES_MAX = 10_000
"""Snoozes of one generation of a job; the next one makes it dead."""

BACKOFF_MS_MAX = 30 * 86_400_000
"""Largest delay that a backoff may reach."""

TIME_MS_MAX = 253_402_300_799_000
"""End of the year 9999: the last time that a job may be scheduled for."""

CHILDREN_MAX = 1_000
"""Jobs that one ACK may enqueue."""

BATCH_JOBS_MAX = 10_000
"""Jobs in one commit."""

BATCH_BYTES_MAX = 8 << 20
"""Bytes of events in one commit, except a single event that is itself within its bounds."""

PAYLOAD_BYTES_CEILING = BATCH_BYTES_MAX // 2
"""Largest value of the configurable limit on a payload: one job must fit into one commit."""

CHILDREN_BYTES_MAX = BATCH_BYTES_MAX - 2 * RESULT_BYTES_MAX
"""Bytes of all jobs that one attempt enqueues: with its result they fit into one commit."""

QUEUES_MAX = 10_000
"""Queues that a store may know at once, beside `default`; idle ones make room for new ones."""

QUEUES_FORGOTTEN_AT_ONCE = 100
"""How many idle queues are forgotten when a new one has no room, so that this stays rare."""

WEIGHT_DEFAULT = 10
WEIGHT_MAX = 1_000
"""A queue's weight is 1 to 1,000; its share of the slots is in proportion."""

AGEING_MS = 60_000
"""A ready job gains one priority for each such period of waiting."""

TOMBSTONES_MAX_DEFAULT = 1_000_000
"""Finished jobs that are remembered to find duplicates; the bound in force is logged."""

TOMBSTONES_EVICTED_PER_EVENT = 4
"""Tombstones evicted per event at most, so that no event takes long."""

BY_CHARS_MAX = 256
"""Of who asked for a change; a token's id and its longest name fit."""

DIGEST_BYTES = 12
"""Length of a request digest (BLAKE2b-96: compared only between two requests of one id)."""

REMOTE_WORKERS_FROM = 1_000_000
"""Workers with this number or a larger one are remote: their attempts outlive a BOOT."""

INTEGER_MAX = (1 << 53) - 1
"""Largest time, seq or number of a worker in an event: every language's JSON holds it."""

ADVANCE_MAX = 1_000
"""Scheduled jobs that become ready in one call of `advance`."""
