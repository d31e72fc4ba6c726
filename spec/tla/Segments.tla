------------------------------ MODULE Segments ------------------------------
(* The files of a store and their names: sealing, snapshots, pruning, and    *)
(* what a recovery makes of them after a crash at any step.                  *)
(*                                                                           *)
(* Inside a segment an append is one durable step: `Log` tells why that may  *)
(* be said.  Here every change of names is a step.  It is seen by processes  *)
(* at once and is durable once its directory was synced; until then a power  *)
(* cut keeps any subset of these changes, each of them whole.                *)
(*                                                                           *)
(* Two processes take steps at the same time: the server, which appends and  *)
(* seals, and its helper, which takes snapshots and prunes the archive.      *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
    EventsMax, FilesMax, SnapshotsMax, CrashesMax,
    DamagesMax,     \* newest snapshots that go bad: 0 or 1
    StraysMax,      \* helpers of a dead server that finish late: 0 or 1
    \* Bugs that can be sown:
    HeaderNotSynced,        \* the next segment's header is not synced before it is named
    HeaderSyncedLate,       \* it is synced with that name, not before
    ArchiveNotSynced,       \* no directory fsync behind the sealed segment's second name
    RenameNotSynced,        \* no directory fsync behind the rename to wal.log
    SnapshotNotSynced,      \* a snapshot is named before it is synced
    PruneBeforeDurable,     \* the archive is pruned before the snapshot's name is durable
    PruneBelowNewest,       \* the archive is pruned below the newest snapshot, not the older
    PruneNewestFirst,       \* the archive is pruned from its newest dispensable segment down
    PrunedNotSynced,        \* no directory fsync between one segment that is pruned and the next
    DamagedIsKept,          \* a damaged newest snapshot takes the place of the older one
    NextKeepsItsName        \* the next segment is called wal.next until it takes over

Names == {"log", "next", "adopted", "snapshot", "older", "tmp"}
Firsts == 1..(EventsMax + 1)        \* archive names: the first seq of a segment
Files == 1..FilesMax
None == 0

VARIABLES
    file,           \* file -> [kind, first, last, good, synced]
    data, archive,              \* names -> file, as processes see them
    diskData, diskArchive,      \* the same, as a power cut would leave them
    lateData, lateArchive,      \* changes between the two, oldest first
    server,         \* where the server stands: "up", a step of sealing or recovery, ...
    helper,         \* where the helper stands
    active, next,   \* files that the server holds open: the active segment, the next one
    found,          \* last seq that a recovery has found
    told,           \* last seq that someone outside may rely on
    snapshots, crashes, damages, strays

vars == <<file, data, archive, diskData, diskArchive, lateData, lateArchive, server, helper,
          active, next, found, told, snapshots, crashes, damages, strays>>
names == <<data, archive, diskData, diskArchive, lateData, lateArchive>>
dataNames == <<data, diskData, lateData>>
archiveNames == <<archive, diskArchive, lateArchive>>
held == <<active, next>>
counters == <<snapshots, crashes, damages, strays>>

Blank == [kind |-> "none", first |-> 0, last |-> 0, good |-> FALSE, synced |-> TRUE]
Unused == {f \in Files : file[f].kind = "none"}
Fresh == CHOOSE f \in Unused : \A g \in Unused : f <= g

(* ------------------------------ names ------------------------------------ *)

(* A change is a function from some names to files; it happens whole.        *)
Changed(view, change) ==
    [n \in DOMAIN view |-> IF n \in DOMAIN change THEN change[n] ELSE view[n]]

RECURSIVE Kept(_, _, _)     \* what the disk has, if these of the late changes get there
Kept(view, late, keep) ==
    IF late = <<>> THEN view
    ELSE Kept(IF 1 \in keep THEN Changed(view, late[1]) ELSE view,
              SubSeq(late, 2, Len(late)),
              {i - 1 : i \in keep \ {1}})

ChangeData(change) ==
    /\ data' = Changed(data, change)
    /\ lateData' = Append(lateData, change)
    /\ UNCHANGED diskData

ChangeArchive(change) ==
    /\ archive' = Changed(archive, change)
    /\ lateArchive' = Append(lateArchive, change)
    /\ UNCHANGED diskArchive

SyncData == diskData' = data /\ lateData' = <<>> /\ UNCHANGED data
SyncArchive == diskArchive' = archive /\ lateArchive' = <<>> /\ UNCHANGED archive

(* ------------------------------ the server: appending, sealing ----------- *)

AppendEvent ==
    /\ server = "up" /\ told < EventsMax
    /\ told' = told + 1
    /\ file' = [file EXCEPT ![active].last = told + 1]
    /\ UNCHANGED <<names, server, helper, held, found, counters>>

NextName == IF NextKeepsItsName THEN "next" ELSE "adopted"

Adopt ==        \* a prepared segment, zero-filled and synced, gets the writer's name for it
    /\ server = "up" /\ next = None /\ Unused # {}
    /\ file' = [file EXCEPT ![Fresh] = [Blank EXCEPT !.kind = "segment"]]
    /\ next' = Fresh
    /\ ChangeData(NextName :> Fresh)
    /\ UNCHANGED <<archiveNames, server, helper, active, found, told, counters>>

WriteHeader ==
    /\ server = "up" /\ next # None
    /\ file[active].last >= file[active].first      \* a segment without events is never sealed
    /\ file' = [file EXCEPT ![next] =
            [kind |-> "segment", first |-> told + 1, last |-> told, good |-> TRUE,
             synced |-> ~(HeaderNotSynced \/ HeaderSyncedLate)]]
    /\ server' = "link"
    /\ UNCHANGED <<names, helper, held, found, told, counters>>

LinkToArchive ==
    /\ server = "link"
    /\ ChangeArchive(file[active].first :> active)
    /\ server' = IF ArchiveNotSynced THEN "rename" ELSE "sync archive"
    /\ UNCHANGED <<file, dataNames, helper, held, found, told, counters>>

SyncSealedName ==
    /\ server = "sync archive"
    /\ SyncArchive
    /\ server' = "rename"
    /\ UNCHANGED <<file, dataNames, helper, held, found, told, counters>>

RenameToLog ==
    /\ server = "rename"
    /\ ChangeData([n \in {"log", NextName} |-> IF n = "log" THEN data[NextName] ELSE None])
    /\ server' = IF RenameNotSynced THEN "switch" ELSE "sync data"
    /\ UNCHANGED <<file, archiveNames, helper, held, found, told, counters>>

SyncNewName ==
    /\ server = "sync data"
    /\ SyncData
    /\ file' = [file EXCEPT ![next].synced = @ \/ HeaderSyncedLate]
    /\ server' = "switch"
    /\ UNCHANGED <<archiveNames, helper, held, found, told, counters>>

Switch ==
    /\ server = "switch"
    /\ active' = next /\ next' = None
    /\ server' = "up"
    /\ UNCHANGED <<file, names, helper, found, told, counters>>

(* ------------------------------ the helper: snapshots, pruning ----------- *)

IsAlive == server \notin {"down", "refused", "drop twin", "sync twin", "drop next", "sync names"}
IsGood(name) == data[name] # None /\ file[data[name]].good
Upto(name) == file[data[name]].last
NewestSeq == IF IsGood("snapshot") THEN Upto("snapshot")
             ELSE IF IsGood("older") THEN Upto("older") ELSE 0

WriteSnapshot ==
    /\ IsAlive /\ helper = "idle" /\ Unused # {}
    /\ snapshots < SnapshotsMax /\ told > NewestSeq
    /\ snapshots' = snapshots + 1
    /\ file' = [file EXCEPT ![Fresh] =
            [kind |-> "snapshot", first |-> 0, last |-> told, good |-> TRUE, synced |-> FALSE]]
    /\ ChangeData("tmp" :> Fresh)
    /\ helper' = IF SnapshotNotSynced THEN "keep" ELSE "sync"
    /\ UNCHANGED <<archiveNames, server, held, found, told, crashes, damages, strays>>

SyncSnapshot ==
    /\ helper = "sync"
    /\ file' = [file EXCEPT ![data["tmp"]].synced = TRUE]
    /\ helper' = "keep"
    /\ UNCHANGED <<names, server, held, found, told, counters>>

KeepOlder ==    \* a damaged newest one must not take the place of a good older one
    /\ helper = "keep"
    /\ IF IsGood("snapshot") \/ (DamagedIsKept /\ data["snapshot"] # None)
       THEN ChangeData([n \in {"older", "snapshot"} |->
                            IF n = "older" THEN data["snapshot"] ELSE None])
       ELSE UNCHANGED dataNames
    /\ helper' = "name"
    /\ UNCHANGED <<file, archiveNames, server, held, found, told, counters>>

NameSnapshot ==
    /\ helper = "name"
    /\ ChangeData([n \in {"snapshot", "tmp"} |-> IF n = "snapshot" THEN data["tmp"] ELSE None])
    /\ helper' = IF PruneBeforeDurable THEN "prune" ELSE "sync name"
    /\ UNCHANGED <<file, archiveNames, server, held, found, told, counters>>

SyncSnapshotName ==
    /\ helper = "sync name"
    /\ SyncData
    /\ helper' = "prune"
    /\ UNCHANGED <<file, archiveNames, server, held, found, told, counters>>

Archived == {f \in Firsts : archive[f] # None}
Smallest(s) == CHOOSE n \in s : \A m \in s : n <= m
Largest(s) == CHOOSE n \in s : \A m \in s : n >= m

Floor ==
    IF PruneBelowNewest THEN NewestSeq
    ELSE IF IsGood("snapshot") /\ IsGood("older") THEN Smallest({Upto("snapshot"), Upto("older")})
    ELSE 0

(* The oldest sealed segment goes if the next one begins at most just above  *)
(* the floor.  While a segment is being sealed it stands in both places, and *)
(* then it is the last one.                                                  *)
IsDispensable(first) ==
    LET later == {f \in Archived \cup {file[data["log"]].first} : f > first}
    IN  later # {} /\ Smallest(later) - 1 <= Floor

Dispensable == {first \in Archived : IsDispensable(first)}

Prune ==
    /\ helper = "prune"
    /\ IF Dispensable # {}
       THEN /\ ChangeArchive((IF PruneNewestFirst THEN Largest(Dispensable)
                               ELSE Smallest(Dispensable)) :> None)
            /\ helper' = IF PrunedNotSynced THEN "prune" ELSE "sync prune"
       ELSE /\ UNCHANGED archiveNames
            /\ helper' = "idle"
    /\ UNCHANGED <<file, dataNames, server, held, found, told, counters>>

SyncPruned ==   \* one by one, so that a crash leaves no hole
    /\ helper = "sync prune"
    /\ SyncArchive
    /\ helper' = "prune"
    /\ UNCHANGED <<file, dataNames, server, held, found, told, counters>>

(* ------------------------------ what goes wrong --------------------------- *)

Crash ==
    /\ crashes < CrashesMax
    /\ crashes' = crashes + 1
    /\ server' = "down" /\ helper' = "idle"
    /\ active' = None /\ next' = None /\ found' = 0
    /\ UNCHANGED <<told, snapshots, damages, strays>>

Kill ==
    /\ server \notin {"down", "refused"}
    /\ Crash
    /\ UNCHANGED <<file, names>>

PowerCut ==     \* contents that were not synced may be lost, too
    /\ server # "refused"
    /\ Crash
    /\ \E keep \in SUBSET (1..Len(lateData)) : data' = Kept(diskData, lateData, keep)
    /\ \E keep \in SUBSET (1..Len(lateArchive)) : archive' = Kept(diskArchive, lateArchive, keep)
    /\ diskData' = data' /\ lateData' = <<>>
    /\ diskArchive' = archive' /\ lateArchive' = <<>>
    /\ \E lost \in SUBSET {f \in Files : ~file[f].synced} :
        file' = [f \in Files |-> IF f \in lost THEN [file[f] EXCEPT !.good = FALSE, !.synced = TRUE]
                                 ELSE [file[f] EXCEPT !.synced = TRUE]]

DamageNewestSnapshot ==
    /\ damages < DamagesMax /\ helper = "idle" /\ lateData = <<>>
    /\ IsGood("snapshot")
    /\ damages' = damages + 1
    /\ file' = [file EXCEPT ![data["snapshot"]].good = FALSE]
    /\ UNCHANGED <<names, server, helper, held, found, told, snapshots, crashes, strays>>

StrayHelper ==  \* the helper of a server that was killed finishes its own next segment
    /\ strays < StraysMax /\ crashes > 0 /\ Unused # {}
    /\ strays' = strays + 1
    /\ file' = [file EXCEPT ![Fresh] = [Blank EXCEPT !.kind = "segment"]]
    /\ ChangeData("next" :> Fresh)
    /\ UNCHANGED <<archiveNames, server, helper, held, found, told, snapshots, crashes, damages>>

(* ------------------------------ recovery ---------------------------------- *)

Log == file[data["log"]]
TwinOfLog == archive[Log.first]
Segments == {Log} \cup {file[archive[f]] : f \in Archived}
Beginnings == {s.first : s \in {t \in Segments : t.first <= NewestSeq + 1}}

IsSound ==      \* the rows of the recovery table that go on; all others refuse
    /\ data["log"] # None
    /\ Log.good
    /\ TwinOfLog \in {None, data["log"]}
    /\ \A f \in Archived : file[archive[f]].good /\ file[archive[f]].first = f /\ f <= Log.first
    /\ Beginnings # {}
    /\ \A s \in Segments :
        s.first > Largest(Beginnings) =>
            \E t \in Segments : t.last + 1 = s.first /\ t.first < s.first
    /\ Log.last >= NewestSeq

Judge ==
    /\ server = "down"
    /\ IF IsSound
       THEN server' = "drop twin" /\ found' = Log.last
       ELSE server' = "refused" /\ UNCHANGED found
    /\ UNCHANGED <<file, names, helper, held, told, counters>>

DropTwin ==
    /\ server = "drop twin"
    /\ IF TwinOfLog # None
       THEN ChangeArchive(Log.first :> None) /\ server' = "sync twin"
       ELSE UNCHANGED archiveNames /\ server' = "drop next"
    /\ UNCHANGED <<file, dataNames, helper, held, found, told, counters>>

SyncTwin ==
    /\ server = "sync twin"
    /\ SyncArchive
    /\ server' = "drop next"
    /\ UNCHANGED <<file, dataNames, helper, held, found, told, counters>>

DropNext ==
    /\ server = "drop next"
    /\ IF data["next"] # None
       THEN ChangeData("next" :> None) /\ UNCHANGED server
       ELSE IF data["adopted"] # None
       THEN ChangeData("adopted" :> None) /\ UNCHANGED server
       ELSE UNCHANGED dataNames /\ server' = "sync names"
    /\ UNCHANGED <<file, archiveNames, helper, held, found, told, counters>>

Open ==
    /\ server = "sync names"
    /\ file' = [file EXCEPT ![data["log"]].synced = TRUE]
    /\ SyncData /\ SyncArchive
    /\ server' = "up"
    /\ active' = data["log"] /\ next' = None
    /\ told' = found
    /\ UNCHANGED <<helper, found, counters>>

(* ------------------------------ together ---------------------------------- *)

Init ==
    /\ file = [f \in Files |-> IF f = 1 THEN
            [kind |-> "segment", first |-> 1, last |-> 0, good |-> TRUE, synced |-> TRUE]
            ELSE Blank]
    /\ data = [n \in Names |-> IF n = "log" THEN 1 ELSE None] /\ diskData = data
    /\ archive = [f \in Firsts |-> None] /\ diskArchive = archive
    /\ lateData = <<>> /\ lateArchive = <<>>
    /\ server = "up" /\ helper = "idle" /\ active = 1 /\ next = None
    /\ found = 0 /\ told = 0
    /\ snapshots = 0 /\ crashes = 0 /\ damages = 0 /\ strays = 0

Next ==
    \/ AppendEvent \/ Adopt \/ WriteHeader \/ LinkToArchive \/ SyncSealedName
    \/ RenameToLog \/ SyncNewName \/ Switch
    \/ WriteSnapshot \/ SyncSnapshot \/ KeepOlder \/ NameSnapshot \/ SyncSnapshotName
    \/ Prune \/ SyncPruned
    \/ Kill \/ PowerCut \/ DamageNewestSnapshot \/ StrayHelper
    \/ Judge \/ DropTwin \/ SyncTwin \/ DropNext \/ Open

Spec == Init /\ [][Next]_vars

(* ------------------------------ what must hold ---------------------------- *)

NothingAcknowledgedIsLost ==
    server \in {"drop twin", "sync twin", "drop next", "sync names"} => found = told

NoCrashMakesAStartRefuse == server # "refused"

(* Replay and history read the archive from its oldest segment on.           *)
TheArchiveHasNoHole ==
    IsAlive /\ data["log"] # None =>
        \A s \in Segments : \/ \A t \in Segments : s.first <= t.first
                            \/ \E t \in Segments : t.last + 1 = s.first /\ t.first < s.first

(* Everything below the log still stands in a snapshot, at any moment.       *)
TheLogReachesBackToASnapshot ==
    server = "up" => (data["log"] # None /\ Beginnings # {})
=============================================================================
