/*
 * The engine's release rule: nothing is seen outside before it is durable.
 *
 * One job goes from ENQUEUE over DISPATCH to ACK; before, between or behind these, or never,
 * QUEUE says that the job's queue opts out of a durable DISPATCH.  Everyone who looks at the
 * engine from outside is here: a producer, one who sends the same request again, a reader, an
 * operator who sets the queue and whose cancel may be refused, a worker that runs what it is
 * given, and its outcome.  Each of them *sees* something that rests on all events up to some
 * seq.  The one exception is a worker that is given a job of a queue which has opted out: that
 * rests on QUEUE alone, not on the job's DISPATCH nor on its ENQUEUE, which a crash may then
 * forget although user code ran.  Whatever else is told of such a job rests on all, as ever.
 *
 * `applied` is the engine's memory, ahead of the log by the open batch; `durable` is what the
 * engine takes for durable; `cache` is what processes read of the file; `disk` is what a
 * power cut leaves.  A sync that fails leaves the page cache clean and the disk unwritten, and
 * the next sync says "done".
 *
 * What must hold:
 *  - `seen <= disk`, whenever something is told (assertion in `tell`);
 *  - recovery finds at least what was seen (assertion in the engine);
 *  - whoever asks is answered, unless a crash comes first (else Spin reports an invalid end).
 *
 * Bugs, sown with -D:
 *  ACK_EARLY        a producer is answered once its job is applied
 *  DUPLICATE_EARLY  a resent request finds its job in memory, and is answered at once
 *  READ_EARLY       a read is answered at once
 *  REFUSAL_EARLY    a refusal is answered at once: it changes nothing, after all
 *  DISPATCH_EARLY   a job and its DISPATCH share a batch, and the worker gets it before the sync,
 *                   although its queue has not opted out
 *  SETTING_EARLY    a queue has opted out once QUEUE is applied, and not once it is durable
 *  OPTED_ACK_EARLY  a queue that has opted out answers its producers early, too
 *  OUTCOME_EARLY    an attempt that was sent early is answered early when it ends
 *  JOINED_EARLY     what joined during a sync is told with it, and not with its own
 *  GO_ON            a failed sync is tried again
 *  NOOP_WAITS       an answer over a durable state waits for a commit that nobody needs
 */

#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef ASKS
#define ASKS 2
#endif

#ifdef ACK_EARLY
#define ack_early true
#elif defined(OPTED_ACK_EARLY)
#define ack_early opted_out(durable)
#else
#define ack_early false
#endif
#ifdef DUPLICATE_EARLY
#define duplicate_early true
#else
#define duplicate_early false
#endif
#ifdef READ_EARLY
#define read_early true
#else
#define read_early false
#endif
#ifdef REFUSAL_EARLY
#define refusal_early true
#else
#define refusal_early false
#endif
#ifdef DISPATCH_EARLY
#define dispatch_early true
#else
#define dispatch_early false
#endif
#ifdef SETTING_EARLY
#define counts_from applied
#else
#define counts_from durable
#endif
#ifdef OUTCOME_EARLY
#define outcome_early sent_early
#define sent(early) sent_early = early
#else
#define outcome_early false
#define sent(early) skip
#endif
#ifdef NOOP_WAITS
#define noop_waits true
#else
#define noop_waits false
#endif

#define NOTHING    0    /* a seq before the first; and the state of a job that is not there */
#define ENQUEUE    1
#define DISPATCH   2
#define ACK        3

/* The job's last event up to a seq: every seq but QUEUE's is one of the job's. */
#define job_at(seq)     (seq - opted_out(seq))
#define opted_out(seq)  (queue_seq != NOTHING && queue_seq <= seq)

#define PRODUCER   0
#define RESENDER   1
#define READER     2
#define OPERATOR   3
#define OUTCOME    4    /* a worker that waits to hear that its outcome was taken */
#define WORKER     5    /* a worker that waits for a job */
#define EVERYONE   6

byte applied, durable;          /* the engine's memory */
byte cache, disk;               /* the file */
byte queue_seq;                 /* where QUEUE stands in the log, if it does */
bool dirty;                     /* the kernel still means to write the cache to the disk */
bool down;
byte frame_end;                 /* a frame up to this seq is being synced, or NOTHING is */
byte seen;                      /* highest seq that anything told outside rests on */
byte crashes;
#ifdef OUTCOME_EARLY
bool sent_early;                /* the attempt that runs was sent before its sync */
#endif

bool asks[EVERYONE], answered[EVERYONE], waits[EVERYONE];
byte rests_on[EVERYONE];

inline tell(who, seq) {
    printf("MSC: tell %d, resting on seq %d; the disk has seq %d\n", who, seq, disk);
    waits[who] = false;
    answered[who] = true;
    if :: seq > seen -> seen = seq :: else fi;
    assert(seq <= disk);
    rests_on[who] = NOTHING
}

/* Gives an answer that rests on all that is applied: now, if it is durable, else with the commit. */
inline release(who, early) {
    if
    :: early || (durable == applied && !noop_waits) -> tell(who, applied)
    :: else -> waits[who] = true; rests_on[who] = applied
    fi
}

inline crash(cut) {
    crashes++;
    printf("MSC: crash: power cut %d\n", cut);
    if :: cut -> cache = disk; dirty = false :: else fi;
    down = true; frame_end = NOTHING;
    applied = NOTHING; durable = NOTHING;
    who_ = 0;
    do
    :: who_ < EVERYONE -> asks[who_] = false; waits[who_] = false; rests_on[who_] = NOTHING; who_++
    :: else -> break
    od;
    who_ = 0
}

active proctype engine() {
    byte who_;
end_up:
    do
    :: atomic { down -> goto recover }

    :: atomic { !down && asks[PRODUCER] -> asks[PRODUCER] = false;
        if
        :: job_at(applied) == NOTHING -> applied++; printf("MSC: ENQUEUE is applied\n");
            release(PRODUCER, ack_early)
        :: else -> release(PRODUCER, duplicate_early)
        fi }

    :: atomic { !down && asks[RESENDER] -> asks[RESENDER] = false;
        if
        :: job_at(applied) == NOTHING -> applied++; printf("MSC: ENQUEUE is applied\n");
            release(RESENDER, ack_early)
        :: else -> release(RESENDER, duplicate_early)
        fi }

    :: atomic { !down && asks[READER] -> asks[READER] = false; release(READER, read_early) }

    :: atomic { !down && asks[OPERATOR] -> asks[OPERATOR] = false;
        if
        :: queue_seq == NOTHING -> applied++; queue_seq = applied;
            printf("MSC: QUEUE is applied: no durable DISPATCH\n"); release(OPERATOR, false)
        /* "finished" or "no such job": both say something of the state */
        :: release(OPERATOR, refusal_early)
        fi }

    :: atomic { !down && asks[OUTCOME] -> asks[OUTCOME] = false;
        if
        :: job_at(applied) == DISPATCH -> applied++; printf("MSC: ACK is applied\n")
        :: else     /* stale, and refused */
        fi;
        release(OUTCOME, outcome_early) }

    /* The controller adds what has become possible to the open batch. */
    :: atomic { !down && asks[WORKER] && job_at(applied) == ENQUEUE -> asks[WORKER] = false;
        applied++; printf("MSC: DISPATCH is applied\n");
        if
        :: opted_out(counts_from) -> sent(true); tell(WORKER, queue_seq)
        :: else -> sent(false); release(WORKER, dispatch_early)
        fi }

    /* The commit: one write and one sync, in turn or beside the loop, which then goes on
     * collecting the next batch; one at a time. */
    :: atomic { !down && frame_end == NOTHING && applied > durable ->
        cache = applied; dirty = true; frame_end = applied;
        printf("MSC: the log is written up to seq %d\n", applied) }

    :: atomic { !down && frame_end != NOTHING -> printf("MSC: the sync says done\n");
        if :: dirty -> disk = cache; dirty = false :: else fi;
#ifdef JOINED_EARLY
        durable = applied;
#else
        durable = frame_end;
#endif
        frame_end = NOTHING;
        who_ = 0;
        do
        :: who_ < EVERYONE ->
            if :: waits[who_] && rests_on[who_] <= durable -> tell(who_, rests_on[who_])
            :: else fi; who_++
        :: else -> break
        od;
        who_ = 0 }

    :: atomic { !down && frame_end != NOTHING && dirty && crashes < CRASHES -> printf("MSC: the sync fails\n");
        dirty = false;
#ifdef GO_ON
        crashes++
#else
        crash(false)
#endif
        }
    od;

recover:
    /* What processes read is believed, written once more, and synced, before anything else. */
    atomic { down -> dirty = true; printf("MSC: recovery reads up to seq %d\n", cache);
        assert(cache >= seen) };
    if
    :: atomic { disk = cache; dirty = false; applied = cache; durable = cache; down = false;
        if :: queue_seq > cache -> queue_seq = NOTHING :: else fi };
        goto end_up
    :: atomic { crashes < CRASHES -> dirty = false; crashes++; cache = disk };  /* and again */
        goto recover
    fi
}

/* The kernel writes dirty pages when it likes, and the world ends when it likes. */
active proctype world() {
    byte who_;
end: do
    :: atomic { dirty -> disk = cache; dirty = false; printf("MSC: the kernel writes back\n") }
    :: atomic { crashes < CRASHES && !down -> crash(false) }
    :: atomic { crashes < CRASHES && !down -> crash(true) }
    od
}

inline ask(who) {
    atomic { !down -> asks[who] = true };
    /* An answer, or a connection that breaks. */
    atomic { answered[who] || !(asks[who] || waits[who]) -> answered[who] = false }
}

proctype client(byte who) {
    byte count;
    do
    :: count < ASKS -> ask(who); count++
    :: break
    od;
    count = 0
}

active proctype worker() {
    /* Waits for a job for ever: that is no missing answer. */
end: atomic { !down -> asks[WORKER] = true };
end_idle:
    if
    :: atomic { answered[WORKER] -> answered[WORKER] = false; printf("MSC: user code runs\n") }
    :: atomic { !answered[WORKER] && !asks[WORKER] && !waits[WORKER] -> goto end }
    fi;
    ask(OUTCOME)
}

init {
    atomic { run client(PRODUCER); run client(RESENDER); run client(READER); run client(OPERATOR) }
}
