-------------------------------- MODULE Log --------------------------------
(* One segment of the log, block by block: what a writer, a page cache, a   *)
(* disk and a recovery do to it, and what must hold after any crash.        *)
(*                                                                          *)
(* Two views of every block: `cache`, which every process reads, and        *)
(* `disk`, which a power cut leaves.  A dirty block goes to the disk at any *)
(* time, in any order.  A failed sync leaves its blocks clean and unwritten:*)
(* reads still give them, a later sync writes nothing of them, and an       *)
(* eviction or a power cut brings the disk's blocks back.                   *)
(*                                                                          *)
(* A frame takes one block or more: a head, with the CRC of the frame       *)
(* before, its seq and the payload's beginning, then tails.  CRCs are       *)
(* perfect: a frame is valid iff head and tails are of one payload.  So the *)
(* running CRC of a chain *is* the sequence of all frames before, which is  *)
(* how it is written here.                                                  *)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
    Blocks,         \* how many blocks the segment has
    Sizes,          \* how many blocks a frame may take
    Data,           \* payloads
    Stamped,        \* TRUE: no two frames are alike (frames carry a stamp in ms)
    UnsyncedMax,    \* frames that may be unsynced at once: 1 in Beaver
    FramesMax,      \* frames that are ever written
    CrashesMax,     \* kills, power cuts and failed syncs together
    EvictionsMax,   \* clean blocks that the kernel drops
    RotMax,         \* durable blocks that go bad: 0 or 1
    \* Bugs that can be sown:
    AckBeforeSync,          \* a frame is acknowledged once it is written
    GoOnAfterFailedSync,    \* a failed sync is tried again instead of ending the process
    CutNotSynced,           \* the cut of a torn tail is not synced before frames are accepted
    NotChained,             \* a frame's CRC and seq are checked, the frame before is not
    LastNotRewritten,       \* recovery syncs the file, and does not rewrite the last frame
    RewriteReadsAgain,      \* the last frame is rewritten as it is read then, not from memory
    NoLookBehind,           \* a bad frame is a torn tail whatever stands behind it
    HeadsAlone,             \* a frame is taken for whole by its head, its tails are not read
    LastNotRead,            \* the reader stops before the last frame
    TornIsRefused,          \* whatever stands behind the last frame is taken for rot
    CutTooFar,              \* the cut of a torn tail takes the last whole frame along
    SyncedIsNotTold         \* a sync is not told to those who wait for it

VARIABLES
    cache,      \* block -> what processes read
    disk,       \* block -> what a power cut leaves
    dirty,      \* blocks that the kernel still means to write
    phase,      \* "down", the steps of recovery, "up", or "refused"
    log,        \* the frames that the running process believes in
    unsynced,   \* how many of the last of them no sync has covered
    told,       \* the frames that someone outside may rely on
    wrote,      \* the frames of this timeline: accepted by recovery, then appended
    frames, crashes, evictions, rot

vars == <<cache, disk, dirty, phase, log, unsynced, told, wrote,
          frames, crashes, evictions, rot>>
counters == <<frames, crashes, evictions, rot>>

Block == 1..Blocks
Zero == <<"zero">>
Bad == <<"bad">>
HeadOf(before, size, data) == <<"head", before, size, data>>
TailOf(data) == <<"tail", data>>

IsPrefix(s, t) == Len(s) <= Len(t) /\ SubSeq(t, 1, Len(s)) = s

RECURSIVE Length(_)
Length(s) == IF s = <<>> THEN 0 ELSE s[Len(s)][1] + Length(SubSeq(s, 1, Len(s) - 1))
EndOf(s) == Length(s) + 1          \* the block behind the last frame
Parent(s) == SubSeq(s, 1, Len(s) - 1)

(* ------------------------------ reading -------------------------------- *)

Whole(view, b) ==   \* a frame that is valid by itself begins at this block
    /\ view[b][1] = "head"
    /\ b + view[b][3] - 1 <= Blocks
    /\ HeadsAlone \/ \A i \in 1..(view[b][3] - 1) : view[b + i] = TailOf(view[b][4])

Follows(view, b, before) ==     \* and it is the next one of this chain
    /\ Whole(view, b)
    /\ IF NotChained THEN Len(view[b][2]) = Len(before) ELSE view[b][2] = before

RECURSIVE Read(_, _, _)
Read(view, b, before) ==
    IF b > Blocks THEN before
    ELSE IF ~Follows(view, b, before) THEN before
    ELSE Read(view, b + view[b][3], Append(before, <<view[b][3], view[b][4]>>))

Found == IF LastNotRead THEN Parent(Read(cache, 1, <<>>)) ELSE Read(cache, 1, <<>>)
IsTorn(found) == \E b \in Block : b >= EndOf(found) /\ cache[b] # Zero

(* With one frame unsynced at a time, a valid frame behind a bad one proves *)
(* that the bad one was synced.  With more of them it proves nothing.       *)
IsCorrupt(found) ==
    /\ UnsyncedMax = 1
    /\ ~NoLookBehind
    /\ \E b \in Block : b >= EndOf(found) /\ ((TornIsRefused /\ cache[b] # Zero) \/ Whole(cache, b))

(* ------------------------------ the kernel ------------------------------ *)

WriteBack(b) ==
    /\ b \in dirty
    /\ disk' = [disk EXCEPT ![b] = cache[b]]
    /\ dirty' = dirty \ {b}
    /\ UNCHANGED <<cache, phase, log, unsynced, told, wrote, counters>>

Evict(b) ==
    /\ b \notin dirty
    /\ cache[b] # disk[b]
    /\ evictions < EvictionsMax
    /\ evictions' = evictions + 1
    /\ cache' = [cache EXCEPT ![b] = disk[b]]
    /\ UNCHANGED <<disk, dirty, phase, log, unsynced, told, wrote, frames, crashes, rot>>

Rot(i) ==       \* a block of a frame that someone relies on goes bad on the disk
    /\ rot = 0 /\ RotMax > 0
    /\ phase = "down" /\ i <= Len(told)
    /\ \E b \in EndOf(SubSeq(told, 1, i - 1))..(EndOf(SubSeq(told, 1, i)) - 1) :
        /\ b \notin dirty
        /\ disk' = [disk EXCEPT ![b] = Bad]
    /\ rot' = i
    /\ UNCHANGED <<cache, dirty, phase, log, unsynced, told, wrote, frames, crashes, evictions>>

(* ------------------------------ crashes --------------------------------- *)

Crash ==
    /\ crashes < CrashesMax
    /\ crashes' = crashes + 1
    /\ phase' = "down"
    /\ log' = <<>> /\ unsynced' = 0

Kill ==         \* the process ends, the page cache lives on
    /\ phase \notin {"down", "refused"}
    /\ Crash
    /\ UNCHANGED <<cache, disk, dirty, told, wrote, frames, evictions, rot>>

PowerCut ==     \* dirty blocks that were not written back are lost
    /\ phase # "refused"
    /\ Crash
    /\ cache' = disk /\ dirty' = {}
    /\ UNCHANGED <<disk, told, wrote, frames, evictions, rot>>

SyncBlocks(range) ==    \* only dirty blocks are ever written
    /\ disk' = [b \in Block |-> IF b \in range \cap dirty THEN cache[b] ELSE disk[b]]
    /\ dirty' = dirty \ range
    /\ UNCHANGED cache

FailSyncOf(range) ==    \* any part may be written; all of it counts as clean from now on
    /\ \E part \in SUBSET (range \cap dirty) :
        disk' = [b \in Block |-> IF b \in part THEN cache[b] ELSE disk[b]]
    /\ dirty' = dirty \ range
    /\ UNCHANGED <<cache, told, wrote, frames, evictions, rot>>

(* ------------------------------ the writer ------------------------------ *)

Put(size, payload, done) ==  \* the first `done` blocks of a frame reach the page cache
    LET at == EndOf(log)
        data == IF Stamped THEN <<payload, frames>> ELSE payload
        new(b) == IF b = at THEN HeadOf(log, size, data) ELSE TailOf(data)
        range == at..(at + done - 1)
    IN  /\ at + size - 1 <= Blocks
        /\ frames < FramesMax
        /\ frames' = frames + 1
        /\ cache' = [b \in Block |-> IF b \in range THEN new(b) ELSE cache[b]]
        /\ dirty' = dirty \cup range
        /\ wrote' = Append(log, <<size, data>>)

Write(size, data) ==
    /\ phase = "up" /\ unsynced < UnsyncedMax
    /\ Put(size, data, size)
    /\ log' = wrote'
    /\ unsynced' = unsynced + 1
    /\ told' = IF AckBeforeSync THEN wrote' ELSE told
    /\ UNCHANGED <<disk, phase, crashes, evictions, rot>>

KillInWrite(size, data, done) ==
    /\ phase = "up" /\ unsynced < UnsyncedMax
    /\ Put(size, data, done)
    /\ Crash
    /\ UNCHANGED <<disk, told, evictions, rot>>

UnsyncedRange == EndOf(SubSeq(log, 1, Len(log) - unsynced))..(EndOf(log) - 1)

SyncAndAcknowledge ==
    /\ phase = "up" /\ unsynced > 0
    /\ SyncBlocks(UnsyncedRange)
    /\ unsynced' = 0
    /\ told' = IF SyncedIsNotTold THEN told ELSE log
    /\ UNCHANGED <<phase, log, wrote, counters>>

SyncFails ==
    /\ phase = "up" /\ unsynced > 0
    /\ FailSyncOf(UnsyncedRange)
    /\ IF GoOnAfterFailedSync
       THEN /\ crashes < CrashesMax /\ crashes' = crashes + 1
            /\ UNCHANGED <<phase, log, unsynced>>
       ELSE Crash

(* ------------------------------ recovery -------------------------------- *)

Scan ==
    /\ phase = "down"
    /\ LET found == Found
       IN IF IsCorrupt(found)
          THEN phase' = "refused" /\ log' = <<>>
          ELSE /\ phase' = IF IsTorn(found) THEN "cut" ELSE "rewrite"
               /\ log' = found
    /\ UNCHANGED <<cache, disk, dirty, unsynced, told, wrote, counters>>

Behind == {b \in Block : b >= EndOf(IF CutTooFar THEN Parent(log) ELSE log)}

Cut ==
    /\ phase = "cut"
    /\ cache' = [b \in Block |-> IF b \in Behind THEN Zero ELSE cache[b]]
    /\ dirty' = dirty \cup Behind
    /\ phase' = "rewrite"
    /\ UNCHANGED <<disk, log, unsynced, told, wrote, counters>>

(* What may live in the page cache alone: the last frame; with more of them  *)
(* unsynced at once it would be as many of the last ones.                   *)
Sure == IF LastNotRewritten \/ Len(log) <= UnsyncedMax
        THEN IF LastNotRewritten THEN Len(log) ELSE 0
        ELSE Len(log) - UnsyncedMax
RewriteRange == EndOf(SubSeq(log, 1, Sure))..(EndOf(log) - 1)

Rewrite ==      \* from memory: a page may be dropped between reading and writing
    /\ phase = "rewrite"
    /\ cache' = [b \in Block |->
            IF b \in RewriteRange /\ ~RewriteReadsAgain
            THEN LET i == CHOOSE n \in 1..Len(log) :
                        b \in EndOf(SubSeq(log, 1, n - 1))..(EndOf(SubSeq(log, 1, n)) - 1)
                     before == SubSeq(log, 1, i - 1)
                 IN IF b = EndOf(before) THEN HeadOf(before, log[i][1], log[i][2])
                    ELSE TailOf(log[i][2])
            ELSE cache[b]]
    /\ dirty' = dirty \cup RewriteRange
    /\ phase' = "rewrite sync"
    /\ UNCHANGED <<disk, log, unsynced, told, wrote, counters>>

Accept ==       \* one sync for cut and rewrite; from here on what was found is built upon
    /\ phase = "rewrite sync"
    /\ SyncBlocks(IF CutNotSynced THEN RewriteRange ELSE Block)
    /\ phase' = "up"
    /\ told' = log /\ wrote' = log
    /\ UNCHANGED <<log, unsynced, counters>>

RecoverySyncFails ==
    /\ phase = "rewrite sync"
    /\ FailSyncOf(IF CutNotSynced THEN RewriteRange ELSE Block)
    /\ Crash

(* ------------------------------ together -------------------------------- *)

Init ==
    /\ cache = [b \in Block |-> Zero] /\ disk = cache /\ dirty = {}
    /\ phase = "up" /\ log = <<>> /\ unsynced = 0
    /\ told = <<>> /\ wrote = <<>>
    /\ frames = 0 /\ crashes = 0 /\ evictions = 0 /\ rot = 0

Next ==
    \/ \E b \in Block : WriteBack(b) \/ Evict(b)
    \/ \E i \in 1..FramesMax : Rot(i)
    \/ Kill \/ PowerCut
    \/ \E size \in Sizes, data \in Data :
        \/ Write(size, data)
        \/ \E done \in 1..(size - 1) : KillInWrite(size, data, done)
    \/ SyncAndAcknowledge \/ SyncFails
    \/ Scan \/ Cut \/ Rewrite \/ Accept \/ RecoverySyncFails

Spec == Init /\ [][Next]_vars

(* ------------------------------ what must hold --------------------------- *)

Recovering == phase \in {"cut", "rewrite", "rewrite sync"}

(* The stated exception: rot of the very last frame passes for a torn one.  *)
LastRotted == rot > 0 /\ rot = Len(told) /\ log = Parent(told)

NothingAcknowledgedIsLost ==
    Recovering => IsPrefix(told, log) \/ LastRotted

NoStaleRecordComesBack ==
    Recovering => IsPrefix(log, wrote) \/ LastRotted

OnlyRotIsRefused ==
    phase = "refused" => rot > 0

(* What was told is on the disk, block by block, not only in a cache: the    *)
(* reason for it all.  It does not ask the reader, who is judged here, too.  *)
Stands(view, s) ==
    \A i \in 1..Len(s) :
        LET before == SubSeq(s, 1, i - 1)
            at == EndOf(before)
        IN  /\ view[at] = HeadOf(before, s[i][1], s[i][2])
            /\ \A b \in (at + 1)..(at + s[i][1] - 1) : view[b] = TailOf(s[i][2])

WhatWasToldIsDurable ==
    (phase = "up" /\ rot = 0) => Stands(disk, told)

(* A writer tells all that it has synced, and nothing else.                  *)
OnlyTheUnsyncedIsUntold ==
    phase = "up" => told = SubSeq(log, 1, Len(log) - unsynced)

TheReaderFindsWhatStands ==
    (phase = "up" /\ rot = 0 /\ Stands(cache, log)) => IsPrefix(log, Found)

(* A recovery takes no frame of which a part is missing, or another one's.   *)
RecoveryTakesWhatStands ==
    [][(phase = "down" /\ phase' \in {"cut", "rewrite"}) => Stands(cache, log')]_vars
=============================================================================
