"""The recovery table: what the files of a store can look like, and what follows from it.

One row for everything that a crash, a user or a failing disk can leave behind. `forensics` and
`repair` note the rows that they meet in the report, each row has its test, and the reference is
generated from here.  A start either *goes on*, and appending works, or it *refuses*, and
nothing has been changed: all refusals come before the first write.
"""

from __future__ import annotations

from enum import Enum


class RecoveryRow(Enum):
    """A row: whether the start goes on, what is found, and what is done."""

    # -- no log ----------------------------------------------------------------------------
    NEW_STORE = (
        True,
        "no wal.log, and nothing that shows that there was one",
        "a new log is made, where that was asked for",
    )
    PREPARED_ONLY = (
        True,
        "no wal.log, only a wal.next: making the store was cut short",
        "nothing was ever acknowledged: wal.next is dropped, a new log is made",
    )
    LOG_MISSING = (
        False,
        (
            "no wal.log, but archive, snapshot, history, slots, an adopted segment, a torn tail or "
            "a log that was rescued from its deletion show that there was one"
        ),
        "refused: sealing and creating never leave a moment without wal.log",
    )

    # -- the end of the active segment -----------------------------------------------------
    EMPTY_LOG = (
        True,
        "wal.log holds its header and no frame, and begins the store",
        "the header is rewritten and synced",
    )
    SEALED_EMPTY = (
        True,
        (
            "wal.log holds its header and no frame, and follows the archive: sealing was "
            "finished, or cut short before its last sync"
        ),
        (
            "the header is rewritten and synced; the sealed segment was synced before its "
            "successor got a header"
        ),
    )
    CLOSED_END = (
        True,
        "the last frame is a CLOSE: a clean end, or sealing cut short behind its first step",
        "the frame is rewritten and synced",
    )
    MARKED_END = (
        True,
        "the last frame is a MARK: the writer was killed when nothing was under way",
        "the frame is rewritten and synced",
    )
    OPEN_END = (
        True,
        "the last frame holds events: the writer was killed",
        (
            "the frame is rewritten identically and synced before anything is answered: after a "
            "failed sync or a kill inside one it may live in the page cache alone"
        ),
    )
    TORN_TAIL = (
        True,
        "bytes that are no frame follow the last frame, and no frame follows them",
        (
            "the remains of a write that was never acknowledged: kept in a .broken file, "
            "zeroed to the end of the file and synced"
        ),
    )
    BAD_FRAME = (
        False,
        "a bad frame with a valid one behind it, or a valid frame that does not follow",
        "refused: at most one frame is ever unsynced, so the bad one had been synced whole",
    )
    BAD_HEADER = (
        False,
        "a damaged file header",
        "refused: a segment gets its name only once its header is synced",
    )

    # -- sealing, cut short -------------------------------------------------------------------
    PREPARED_UNUSED = (
        True,
        "wal.next or wal.adopted without a header, beside wal.log",
        "it is dropped: a prepared segment never holds events",
    )
    SEALING_NOT_LINKED = (
        True,
        "wal.adopted with a header (whole or torn), and wal.log is not in the archive",
        "it is dropped, and wal.log goes on",
    )
    SEALING_LINKED = (
        True,
        "wal.log is also in the archive: sealing was cut short before wal.log became the next one",
        "the name in the archive is dropped, and wal.log goes on",
    )
    SEALING_COPIED = (
        True,
        (
            "as SEALING_LINKED, in a copied directory: two files, of which the archived one is "
            "the beginning of wal.log"
        ),
        "the archived copy is dropped, and wal.log goes on",
    )

    # -- segments that do not fit together ---------------------------------------------------
    GAP = (
        False,
        "seqs are missing between two segments, or between the snapshot and the first one",
        "refused",
    )
    BROKEN_CHAIN = (
        False,
        "a segment does not go on where the one before it ends, or two begin with one seq",
        "refused",
    )
    CUT_ARCHIVE = (
        False,
        "a sealed segment does not end with its CLOSE",
        "refused: it was synced whole before it was sealed",
    )
    FOREIGN = (
        False,
        "a segment or a snapshot of another store, or a segment under another name",
        "refused",
    )

    # -- snapshots -----------------------------------------------------------------------------
    SNAPSHOT_MISSING = (
        True,
        "no snapshot.json, but an older one: replacing it was cut short",
        "the older one is the base; the log reaches back to it",
    )
    SNAPSHOT_DAMAGED = (
        True,
        "a damaged snapshot.json and a good older one",
        "the older one is the base; the log reaches back to it",
    )
    SNAPSHOTS_USELESS = (
        True,
        "no good snapshot, and a log that reaches back to the first seq",
        "the whole log is replayed",
    )
    NO_BASE = (
        False,
        "no good snapshot, and a log that begins later than the first seq",
        "refused",
    )
    LOG_TOO_SHORT = (
        False,
        "the snapshot is newer than the log's last event",
        "refused: a snapshot holds only what had been synced, so the log has lost something",
    )

    # -- what the frames say -------------------------------------------------------------------
    BAD_PAYLOAD = (
        False,
        "a frame with a good CRC that holds no commit",
        "refused",
    )
    ILLEGAL_EVENT = (
        False,
        "an event that cannot follow from the state before it",
        "refused",
    )
    NEWER_FORMAT = (
        False,
        "an intact file, frame or event of a newer version",
        "refused and named as such, with its own exit code: it is not corrupt",
    )

    def __init__(self, goes_on: bool, found: str, done: str) -> None:
        self.goes_on = goes_on
        self.found = found
        self.done = done

    @property
    def label(self) -> str:
        """The name in reports and documents, `torn-tail`."""
        return self.name.lower().replace("_", "-")
