--------------------------- MODULE LifecycleTrace ---------------------------
(* A log of the real program walks through `Lifecycle`: event by event, only  *)
(* the action of its name, with its values, may happen.  `beaver_spec` writes *)
(* the module `TraceEvents`, where `Trace` is the log.                        *)
(*                                                                            *)
(* TLC "violates" TheTraceGoesOn exactly if the whole log fits.  If it does   *)
(* not, TLC stops after as many states as there are events that fit, and the  *)
(* next event is the wrong one.                                               *)
EXTENDS Lifecycle, Sequences, TraceEvents

Happens(e) ==
    CASE e.name = "ENQUEUE" -> ENQUEUE(e.job, e.time, e.at, e.max)
      [] e.name = "DISPATCH" -> DISPATCH(e.job, e.time, e.remote)
      [] e.name = "ACK" -> ACK(e.job, e.time, e.token)
      [] e.name = "RETRY" -> RETRY(e.job, e.time, e.token, e.at)
      [] e.name = "TIMEOUT" -> TIMEOUT(e.job, e.time, e.token, e.at, e.suspect)
      [] e.name = "RELEASE" -> RELEASE(e.job, e.time, e.token, e.at)
      [] e.name = "DEAD" -> DEAD(e.job, e.time, e.token)
      [] e.name = "CANCEL_REQUESTED" -> CANCEL_REQUESTED(e.job, e.time)
      [] e.name = "CANCEL" -> CANCEL(e.job, e.time, e.token)
      [] e.name = "REQUEUE" -> REQUEUE(e.job, e.time)
      [] e.name = "DISCARD" -> DISCARD(e.job, e.time)
      [] e.name = "BOOT" -> BOOT(e.time, e.suspect)
      [] e.name \in {"QUEUE", "BOUNDS", "FORGET_QUEUE"} -> OTHER_EVENT(e.time)

TraceNext ==
    /\ seq < Len(Trace)
    /\ Trace[seq + 1].seq = seq + 1
    /\ Happens(Trace[seq + 1])

TraceSpec == Init /\ [][TraceNext]_vars

TheTraceGoesOn == seq < Len(Trace)
=============================================================================
