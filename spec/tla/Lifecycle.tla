------------------------------ MODULE Lifecycle ------------------------------
(* The life of jobs, one action for each event of the log, named as it is.     *)
(*                                                                             *)
(* Two uses: TLC explores it by itself (`Lifecycle.cfg`), with workers that    *)
(* answer late and with any token they ever got; and `LifecycleTrace` lets a   *)
(* log of the real program choose the actions, one by one.                     *)
EXTENDS Naturals, FiniteSets

CONSTANTS
    Jobs,
    AttemptsMax,    \* what a job asks for, while TLC explores
    SeqMax,         \* events that are ever logged, while TLC explores
    TimeMax,        \* the clock's face is 0..TimeMax, while TLC explores
    Remotes,        \* whether workers are remote, while TLC explores: {FALSE} or BOOLEAN
    \* Bugs that can be sown:
    AnyTokenAnswers,        \* an outcome is taken whatever its token
    AttemptsAreNotCounted   \* a failed attempt costs nothing

VARIABLES
    job,        \* job -> its row
    seq,        \* of the last event
    now,        \* time of the last event
    owed,       \* in flight when the server booted, and not resolved yet
    powerCut,   \* the machine had gone down before that BOOT
    ran,        \* job -> attempts that were charged in this generation
    endedBy,    \* job -> the token that its completion carried, 0 before
    booted,     \* seq of the last BOOT
    event       \* the last event: its name, time and token (0: none), and whether power was cut

vars == <<job, seq, now, owed, powerCut, ran, endedBy, booted, event>>
View == <<job, seq, now, owed, powerCut, ran, endedBy, booted>>    \* what tells states apart

Nobody == [state |-> "new", attempt |-> 0, max |-> 0, token |-> 0, at |-> 0,
           cancel |-> FALSE, suspect |-> FALSE, remote |-> FALSE]

Is(j, states) == job[j].state \in states
Left(j) == AttemptsAreNotCounted \/ job[j].attempt < job[j].max
Answers(j, token) == AnyTokenAnswers \/ job[j].token = token
InFlight == {j \in Jobs : Is(j, {"in_flight"})}
Later(a, b) == IF a > b THEN a ELSE b

(* Every event has its seq and a time that does not go back; a commit that     *)
(* begins with BOOT first resolves whatever local workers had in flight.       *)
Logged(j, time) ==
    /\ time >= now
    /\ owed = {} \/ j \in owed
    /\ seq' = seq + 1 /\ now' = time
    /\ owed' = owed \ {j}

Told(name, time, token) ==
    event' = [name |-> name, time |-> time, token |-> token, cut |-> FALSE]

Ended(j) == [job[j] EXCEPT !.token = 0, !.remote = FALSE]

ENQUEUE(j, time, at, max) ==
    /\ Is(j, {"new"})
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] =
            [Nobody EXCEPT !.state = "pending", !.max = max, !.at = Later(at, time)]]
    /\ Told("ENQUEUE", time, 0)
    /\ UNCHANGED <<powerCut, ran, endedBy, booted>>

DISPATCH(j, time, remote) ==
    /\ Is(j, {"pending"}) /\ Left(j)
    /\ job[j].at <= time
    /\ job[j].suspect => \A k \in InFlight : ~job[k].suspect
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j].state = "in_flight", ![j].attempt = @ + 1, ![j].token = seq + 1,
                          ![j].remote = remote]
    /\ ran' = [ran EXCEPT ![j] = @ + 1]
    /\ Told("DISPATCH", time, 0)
    /\ UNCHANGED <<powerCut, endedBy, booted>>

ACK(j, time, token) ==
    /\ Is(j, {"in_flight"}) /\ Answers(j, token) /\ j \notin owed
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] = [Ended(j) EXCEPT !.state = "completed"]]
    /\ endedBy' = [endedBy EXCEPT ![j] = token]
    /\ Told("ACK", time, token)
    /\ UNCHANGED <<powerCut, ran, booted>>

Again(j, time, token, at, suspect) ==
    /\ Is(j, {"in_flight"}) /\ Answers(j, token) /\ Left(j) /\ ~job[j].cancel
    /\ at >= time
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] =
            [Ended(j) EXCEPT !.state = "pending", !.at = at, !.suspect = suspect]]
    /\ UNCHANGED <<powerCut, ran, endedBy, booted>>

RETRY(j, time, token, at) ==
    /\ j \notin owed
    /\ Again(j, time, token, at, FALSE)
    /\ Told("RETRY", time, token)

TIMEOUT(j, time, token, at, suspect) ==
    /\ suspect = (j \in owed /\ powerCut)
    /\ Again(j, time, token, at, suspect)
    /\ Told("TIMEOUT", time, token)

RELEASE(j, time, token, at) ==      \* given back: nothing is charged
    /\ Is(j, {"in_flight"}) /\ Answers(j, token) /\ ~job[j].cancel
    /\ ~(j \in owed /\ powerCut)
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] =
            [Ended(j) EXCEPT !.state = "pending", !.at = Later(@, at), !.attempt = @ - 1]]
    /\ ran' = [ran EXCEPT ![j] = @ - 1]
    /\ Told("RELEASE", time, token)
    /\ UNCHANGED <<powerCut, endedBy, booted>>

DEAD(j, time, token) ==
    /\ \/ Is(j, {"in_flight"}) /\ Answers(j, token) /\ ~job[j].cancel
       \/ Is(j, {"pending"}) /\ token = 0
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] = [Ended(j) EXCEPT !.state = "dead", !.suspect = FALSE]]
    /\ Told("DEAD", time, token)
    /\ UNCHANGED <<powerCut, ran, endedBy, booted>>

CANCEL_REQUESTED(j, time) ==
    /\ Is(j, {"in_flight"}) /\ ~job[j].cancel
    /\ owed = {}
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j].cancel = TRUE]
    /\ Told("CANCEL_REQUESTED", time, 0)
    /\ UNCHANGED <<powerCut, ran, endedBy, booted>>

CANCEL(j, time, token) ==
    /\ \/ Is(j, {"in_flight"}) /\ Answers(j, token)
       \/ Is(j, {"pending"}) /\ token = 0
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] =
            [Ended(j) EXCEPT !.state = "cancelled", !.suspect = FALSE, !.cancel = FALSE]]
    /\ Told("CANCEL", time, token)
    /\ UNCHANGED <<powerCut, ran, endedBy, booted>>

REQUEUE(j, time) ==
    /\ Is(j, {"dead", "cancelled"})
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] = [@ EXCEPT !.state = "pending", !.attempt = 0, !.at = time]]
    /\ ran' = [ran EXCEPT ![j] = 0]
    /\ Told("REQUEUE", time, 0)
    /\ UNCHANGED <<powerCut, endedBy, booted>>

DISCARD(j, time) ==
    /\ Is(j, {"pending", "dead", "cancelled"})
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j].state = "forgotten"]
    /\ Told("DISCARD", time, 0)
    /\ UNCHANGED <<powerCut, ran, endedBy, booted>>

BOOT(time, cut) ==
    /\ time >= now /\ owed = {}
    /\ seq' = seq + 1 /\ now' = time
    /\ owed' = {j \in InFlight : ~job[j].remote} /\ powerCut' = cut
    /\ booted' = seq + 1
    /\ event' = [name |-> "BOOT", time |-> time, token |-> 0, cut |-> cut]
    /\ UNCHANGED <<job, ran, endedBy>>

OTHER_EVENT(time) ==      \* QUEUE and BOUNDS change no job
    /\ time >= now /\ owed = {}
    /\ seq' = seq + 1 /\ now' = time
    /\ Told("OTHER_EVENT", time, 0)
    /\ UNCHANGED <<job, owed, powerCut, ran, endedBy, booted>>

Init ==
    /\ job = [j \in Jobs |-> Nobody]
    /\ seq = 0 /\ now = 0 /\ owed = {} /\ powerCut = FALSE /\ booted = 0
    /\ event = [name |-> "none", time |-> 0, token |-> 0, cut |-> FALSE]
    /\ ran = [j \in Jobs |-> 0] /\ endedBy = [j \in Jobs |-> 0]

(* While TLC explores, commands come with any time that is on the clock's      *)
(* face, and workers answer with any token there ever was.                     *)
Exploring == seq < SeqMax       \* the CONSTRAINT of the configurations
Tokens == 0..SeqMax
Times == 0..TimeMax

Next ==
    \/ \E j \in Jobs, time, at \in Times : ENQUEUE(j, time, at, AttemptsMax)
    \/ \E j \in Jobs, time \in Times, remote \in Remotes : DISPATCH(j, time, remote)
    \/ \E j \in Jobs, time \in Times, token \in Tokens : ACK(j, time, token)
    \/ \E j \in Jobs, time, at \in Times, token \in Tokens : RETRY(j, time, token, at)
    \/ \E j \in Jobs, time, at \in Times, token \in Tokens, suspect \in BOOLEAN :
        TIMEOUT(j, time, token, at, suspect)
    \/ \E j \in Jobs, time, at \in Times, token \in Tokens : RELEASE(j, time, token, at)
    \/ \E j \in Jobs, time \in Times, token \in Tokens : DEAD(j, time, token)
    \/ \E j \in Jobs, time \in Times : CANCEL_REQUESTED(j, time)
    \/ \E j \in Jobs, time \in Times, token \in Tokens : CANCEL(j, time, token)
    \/ \E j \in Jobs, time \in Times : REQUEUE(j, time)
    \/ \E j \in Jobs, time \in Times : DISCARD(j, time)
    \/ \E time \in Times, cut \in BOOLEAN : BOOT(time, cut)
    \/ \E time \in Times : OTHER_EVENT(time)

Spec == Init /\ [][Next]_vars

(* ------------------------------ what must hold ------------------------------ *)

AttemptsAreBounded == \A j \in Jobs : ran[j] <= job[j].max

(* RELEASE alone gives an attempt back, and it does.                           *)
AttemptsAreThoseThatWereCharged ==
    \A j \in Jobs : Is(j, {"pending", "in_flight"}) => job[j].attempt = ran[j]

OnlyTheAttemptInFlightHasAToken ==
    \A j \in Jobs : (job[j].token # 0) = Is(j, {"in_flight"})

TokensAreUnique ==
    \A j, k \in InFlight : j # k => job[j].token # job[k].token

ACompletionAnswersTheLastAttempt ==
    [][\A j \in Jobs : endedBy[j] # endedBy'[j] =>
        endedBy[j] = 0 /\ endedBy'[j] = job[j].token]_vars

AnOutcomeAnswersTheAttemptInFlight ==   \* and none where there is no attempt
    [][\A j \in Jobs : job[j].state # job'[j].state => event'.token = job[j].token]_vars

EveryEventOfAJobChangesIt ==
    [][event'.name \notin {"BOOT", "OTHER_EVENT"} => job' # job]_vars

OnlyARequestAsksForACancel ==
    [][\A j \in Jobs : job'[j].cancel /\ ~job[j].cancel => event'.name = "CANCEL_REQUESTED"]_vars

NoJobWaitsWithoutAnAttempt == \A j \in Jobs : Is(j, {"pending"}) => job[j].attempt < job[j].max

NoOutcomeCrossesABoot ==     \* but those of remote workers
    [][\A j \in Jobs : endedBy[j] # endedBy'[j] =>
        endedBy'[j] > booted \/ job[j].remote]_vars

ACompletionKeepsItsToken ==
    \A j \in Jobs : Is(j, {"completed"}) = (endedBy[j] # 0)

AtMostOneSuspectRuns ==
    Cardinality({j \in InFlight : job[j].suspect /\ j \notin owed}) <= 1

(* The lifecycle, drawn once more as a list of its arrows.                     *)
Arrows == {
    <<"new", "pending">>, <<"pending", "in_flight">>, <<"in_flight", "completed">>,
    <<"in_flight", "pending">>, <<"in_flight", "dead">>, <<"in_flight", "cancelled">>,
    <<"pending", "dead">>, <<"pending", "cancelled">>, <<"pending", "forgotten">>,
    <<"dead", "pending">>, <<"dead", "forgotten">>,
    <<"cancelled", "pending">>, <<"cancelled", "forgotten">>}

OnlyArrowsAreTaken ==
    [][\A j \in Jobs : job[j].state # job'[j].state =>
        <<job[j].state, job'[j].state>> \in Arrows]_vars

ARequeueBeginsAfresh ==
    [][\A j \in Jobs : Is(j, {"dead", "cancelled"}) /\ job'[j].state = "pending" =>
        job'[j].attempt = 0 /\ ~job'[j].cancel /\ ~job'[j].suspect]_vars

ACancelRequestIsNotForgotten ==     \* an ACK may win; nothing else brings the job back
    [][\A j \in Jobs : job[j].cancel /\ job[j] # job'[j] =>
        job'[j].state \in {"completed", "cancelled"}]_vars

(* BOOT: every attempt of an earlier run is resolved before anything else, but *)
(* for those of remote workers, which no BOOT ends.                            *)
NoAttemptOutlivesABoot ==
    \A j \in InFlight : job[j].token > booted \/ j \in owed \/ job[j].remote

NoRemoteAttemptIsOwed == \A j \in owed : ~job[j].remote

OnlyAnAttemptIsRemote == \A j \in Jobs : job[j].remote => Is(j, {"in_flight"})

ABootIsRemembered ==
    [][event'.name = "BOOT" => booted' = seq' /\ powerCut' = event'.cut]_vars

WhatIsOwedComesFirst ==
    [][owed # {} => owed' \subseteq owed /\ owed' # owed]_vars

OnlyAPowerCutMakesSuspects ==
    [][\A j \in Jobs : Is(j, {"in_flight"}) /\ job'[j].state = "pending" =>
        IF j \in owed /\ powerCut THEN job'[j].suspect
        ELSE job'[j].suspect => job[j].suspect]_vars

WhatEndedIsNoSuspect ==
    \A j \in Jobs : Is(j, {"dead", "cancelled"}) => ~job[j].suspect /\ ~job[j].cancel

(* P12, and stamps that never go back.                                         *)
TimeNeverGoesBack == [][now' >= now /\ now' = event'.time /\ seq' = seq + 1]_vars

NoJobStartsBeforeItsTime ==
    [][\A j \in Jobs : ~Is(j, {"in_flight"}) /\ job'[j].state = "in_flight" =>
        job[j].at <= now']_vars

NothingIsPutOffToThePast ==     \* what is given back keeps the time that it had
    [][\A j \in Jobs : job[j].state # "pending" /\ job'[j].state = "pending" =>
        job'[j].at >= IF Is(j, {"in_flight"}) /\ job'[j].attempt < job[j].attempt
                      THEN job[j].at ELSE now']_vars
=============================================================================
