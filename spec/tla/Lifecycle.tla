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
    \* Bugs that can be sown:
    AnyTokenAnswers,        \* an outcome is taken whatever its token
    AttemptsAreNotCounted   \* a failed attempt costs nothing

VARIABLES
    job,        \* job -> its row
    seq,        \* of the last event
    now,        \* time of the last event
    owed,       \* in flight when the server booted, and not resolved yet
    powerCut,   \* the machine had gone down before that BOOT
    ran,        \* job -> how often user code was started in this generation
    endedBy     \* job -> the token that its completion carried, 0 before

vars == <<job, seq, now, owed, powerCut, ran, endedBy>>

Nobody == [state |-> "new", attempt |-> 0, max |-> 0, token |-> 0, at |-> 0,
           cancel |-> FALSE, suspect |-> FALSE]

Is(j, states) == job[j].state \in states
Left(j) == AttemptsAreNotCounted \/ job[j].attempt < job[j].max
Answers(j, token) == AnyTokenAnswers \/ job[j].token = token
InFlight == {j \in Jobs : Is(j, {"in_flight"})}
Later(a, b) == IF a > b THEN a ELSE b

(* Every event has its seq and a time that does not go back; a commit that     *)
(* begins with BOOT first resolves whatever was in flight.                     *)
Logged(j, time) ==
    /\ time >= now
    /\ owed = {} \/ j \in owed
    /\ seq' = seq + 1 /\ now' = time
    /\ owed' = owed \ {j}

Ended(j) == [job[j] EXCEPT !.token = 0]

ENQUEUE(j, time, at, max) ==
    /\ Is(j, {"new"})
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] =
            [Nobody EXCEPT !.state = "pending", !.max = max, !.at = Later(at, time)]]
    /\ UNCHANGED <<powerCut, ran, endedBy>>

DISPATCH(j, time) ==
    /\ Is(j, {"pending"}) /\ Left(j)
    /\ job[j].at <= time
    /\ job[j].suspect => \A k \in InFlight : ~job[k].suspect
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j].state = "in_flight", ![j].attempt = @ + 1, ![j].token = seq + 1]
    /\ ran' = [ran EXCEPT ![j] = @ + 1]
    /\ UNCHANGED <<powerCut, endedBy>>

ACK(j, time, token) ==
    /\ Is(j, {"in_flight"}) /\ Answers(j, token)
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] = [Ended(j) EXCEPT !.state = "completed"]]
    /\ endedBy' = [endedBy EXCEPT ![j] = token]
    /\ UNCHANGED <<powerCut, ran>>

Again(j, time, token, at, suspect) ==
    /\ Is(j, {"in_flight"}) /\ Answers(j, token) /\ Left(j) /\ ~job[j].cancel
    /\ at >= time
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] =
            [Ended(j) EXCEPT !.state = "pending", !.at = at, !.suspect = suspect]]
    /\ UNCHANGED <<powerCut, ran, endedBy>>

RETRY(j, time, token, at) == Again(j, time, token, at, FALSE)

TIMEOUT(j, time, token, at, suspect) ==
    /\ suspect = (j \in owed /\ powerCut)
    /\ Again(j, time, token, at, suspect)

RELEASE(j, time, token, at) ==      \* given back: nothing is charged
    /\ Is(j, {"in_flight"}) /\ Answers(j, token) /\ ~job[j].cancel
    /\ ~(j \in owed /\ powerCut)
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] =
            [Ended(j) EXCEPT !.state = "pending", !.at = Later(@, at), !.attempt = @ - 1]]
    /\ ran' = [ran EXCEPT ![j] = @ - 1]
    /\ UNCHANGED <<powerCut, endedBy>>

DEAD(j, time, token) ==
    /\ \/ Is(j, {"in_flight"}) /\ Answers(j, token) /\ ~job[j].cancel
       \/ Is(j, {"pending"}) /\ token = 0
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] = [Ended(j) EXCEPT !.state = "dead", !.suspect = FALSE]]
    /\ UNCHANGED <<powerCut, ran, endedBy>>

CANCEL_REQUESTED(j, time) ==
    /\ Is(j, {"in_flight"}) /\ ~job[j].cancel
    /\ owed = {}
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j].cancel = TRUE]
    /\ UNCHANGED <<powerCut, ran, endedBy>>

CANCEL(j, time, token) ==
    /\ \/ Is(j, {"in_flight"}) /\ Answers(j, token)
       \/ Is(j, {"pending"}) /\ token = 0
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] =
            [Ended(j) EXCEPT !.state = "cancelled", !.suspect = FALSE, !.cancel = FALSE]]
    /\ UNCHANGED <<powerCut, ran, endedBy>>

REQUEUE(j, time) ==
    /\ Is(j, {"dead", "cancelled"})
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j] = [@ EXCEPT !.state = "pending", !.attempt = 0, !.at = time]]
    /\ ran' = [ran EXCEPT ![j] = 0]
    /\ UNCHANGED <<powerCut, endedBy>>

DISCARD(j, time) ==
    /\ Is(j, {"pending", "dead", "cancelled"})
    /\ Logged(j, time)
    /\ job' = [job EXCEPT ![j].state = "forgotten"]
    /\ UNCHANGED <<powerCut, ran, endedBy>>

BOOT(time, cut) ==
    /\ time >= now /\ owed = {}
    /\ seq' = seq + 1 /\ now' = time
    /\ owed' = InFlight /\ powerCut' = cut
    /\ UNCHANGED <<job, ran, endedBy>>

OTHER_EVENT(time) ==      \* QUEUE and BOUNDS change no job
    /\ time >= now /\ owed = {}
    /\ seq' = seq + 1 /\ now' = time
    /\ UNCHANGED <<job, owed, powerCut, ran, endedBy>>

Init ==
    /\ job = [j \in Jobs |-> Nobody]
    /\ seq = 0 /\ now = 0 /\ owed = {} /\ powerCut = FALSE
    /\ ran = [j \in Jobs |-> 0] /\ endedBy = [j \in Jobs |-> 0]

(* While TLC explores, time stands still: P12 is for traces.  Workers answer   *)
(* with any token there ever was.                                              *)
Exploring == seq < SeqMax       \* the CONSTRAINT of Lifecycle.cfg
Tokens == 0..SeqMax

Next ==
    \/ \E j \in Jobs : ENQUEUE(j, now, now, AttemptsMax)
    \/ \E j \in Jobs : DISPATCH(j, now)
    \/ \E j \in Jobs, token \in Tokens : ACK(j, now, token)
    \/ \E j \in Jobs, token \in Tokens : RETRY(j, now, token, now)
    \/ \E j \in Jobs, token \in Tokens :
        TIMEOUT(j, now, token, now, j \in owed /\ powerCut)
    \/ \E j \in Jobs, token \in Tokens : RELEASE(j, now, token, now)
    \/ \E j \in Jobs, token \in Tokens : DEAD(j, now, token)
    \/ \E j \in Jobs : CANCEL_REQUESTED(j, now)
    \/ \E j \in Jobs, token \in Tokens : CANCEL(j, now, token)
    \/ \E j \in Jobs : REQUEUE(j, now)
    \/ \E j \in Jobs : DISCARD(j, now)
    \/ \E cut \in BOOLEAN : BOOT(now, cut)

Spec == Init /\ [][Next]_vars

(* ------------------------------ what must hold ------------------------------ *)

AttemptsAreBounded == \A j \in Jobs : ran[j] <= job[j].max

OnlyTheAttemptInFlightHasAToken ==
    \A j \in Jobs : (job[j].token # 0) = Is(j, {"in_flight"})

TokensAreUnique ==
    \A j, k \in InFlight : j # k => job[j].token # job[k].token

ACompletionAnswersTheLastAttempt ==
    [][\A j \in Jobs : endedBy[j] # endedBy'[j] =>
        endedBy[j] = 0 /\ endedBy'[j] = job[j].token]_vars

AtMostOneSuspectRuns ==
    Cardinality({j \in InFlight : job[j].suspect /\ j \notin owed}) <= 1
=============================================================================
