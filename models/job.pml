/* One job under two workers, a keeper (reaper, revert, give up), persons, a clock and death. README.md tells what is
   modelled, what is not, and which code is meant.

   Whoever changes the row does so as in pstamp_core/store/fire.py: read it (`look`); later decide on what was read, and
   compare and set (`fire`). The machine's table is job.inc. Each -D that is asked for below breaks one thing. */

#ifndef CEILING
#define CEILING 2     /* faults after which nothing is reverted, but by a person */
#endif
#ifndef RELEASES
#define RELEASES 1    /* how often a worker may give the job back untouched */
#endif
#ifndef DEATHS
#define DEATHS 1      /* how often a worker may be killed */
#endif

#define NOBODY 0
#define NOTHING 0     /* what a file holds: nothing, a part of a stamp, a whole stamp */
#define PART 1
#define WHOLE 2

typedef Row {         /* the columns that the machine and the compare-and-set look at */
    mtype state;
    mtype fault;
    byte count;       /* fault_count */
    byte attempt;
    byte owner;       /* lease_owner */
    byte lease;       /* lease_until: which one, of all that this attempt has had */
    bool lapsed       /* lease_until < now */
}

Row job;
byte result;          /* column result: what the product holds, as its md5 says */
byte public;          /* the file under its public name, */
byte private[3];      /* and under the private name of each worker */
byte finishes, releases, deaths;
bool killed[3];
hidden byte edge;     /* the line of the table that is being applied, */
hidden mtype from;    /* and the state it leads from */

/* What must never be; where it is, the assertion names it. */
hidden byte outside_table, ended_job_changed, finished_twice, blind_write, late_write, attempt_reused, live_lease_taken;
hidden byte half_published, result_not_in_file, published_after_loss;
#define NEVER(what, condition) if :: condition -> what = 1; assert(!what); what = 0 :: else fi

/* Who fires events: what they remember of the row, and what they bring along (Args). */
#define CALLER(number) \
    byte me = number; Row seen; mtype code = F_NONE; bool operator = false; bool won = false; \
    byte stamp = NOTHING; bool lost = false

inline remember() {
    seen.state = job.state; seen.fault = job.fault; seen.count = job.count; seen.attempt = job.attempt;
    seen.owner = job.owner; seen.lease = job.lease
}

inline look() { remember(); printf("look %d\n", _pid) }    /* in `atomic`: after d_step, random runs let nobody else in */

inline forget() {
    seen.state = 0; seen.fault = 0; seen.count = 0; seen.attempt = 0; seen.owner = 0; seen.lease = 0; seen.lapsed = false;
    code = F_NONE; operator = false; won = false; stamp = NOTHING; lost = false
}

/* ---- guards and effects, by their names in pstamp_core/machines/machine.py; every back-off is over at once */

#define G_FREE (seen.owner == NOBODY)
#define G_READY (seen.fault == F_NONE)
#define G_HELD (seen.owner == me)
#define G_LAPSED (seen.owner != NOBODY && seen.lapsed)
#define G_FAULTED (seen.fault == F_RETRYABLE)
#define G_MAY_RETRY (operator || seen.count < CEILING)
#define G_RETRYABLE (code == F_RETRYABLE)
#define G_FINAL (code == F_FINAL)

inline no_lease()     { job.owner = NOBODY; job.lease = 0; job.lapsed = false }
inline take_lease()   { job.attempt = seen.attempt + 1; job.owner = me; job.lease = 1; job.lapsed = false }
inline keep_lease()   { job.lease = seen.lease + 1; job.lapsed = false }
inline postpone()     { no_lease() }
inline record_fault() { no_lease(); job.fault = code; job.count = seen.count + 1 }
inline record_loss()  { no_lease(); job.fault = F_RETRYABLE; job.count = seen.count + 1 }
inline clear_fault()  { job.fault = F_NONE }
inline give_code()    { no_lease(); job.fault = code }
inline cancelled()    { no_lease(); job.fault = F_FINAL }
inline succeed()      { no_lease(); job.fault = F_NONE; result = stamp }
inline nothing()      { skip }

#include "job.inc"

/* ---- fire: the compare-and-set, and what is never to get through it */

#ifdef NO_FENCE
#define NO_ATTEMPT_CAS
#define NO_OWNER_CAS
#endif

#ifdef NO_STATE_CAS
#define SAME_STATE true
#else
#define SAME_STATE (job.state == seen.state)
#endif
#ifdef NO_FAULT_CAS
#define SAME_FAULT true
#else
#define SAME_FAULT (job.fault == seen.fault)
#endif
#ifdef NO_ATTEMPT_CAS
#define SAME_ATTEMPT true
#else
#define SAME_ATTEMPT (job.attempt == seen.attempt)
#endif
#ifdef NO_OWNER_CAS
#define SAME_OWNER true
#else
#define SAME_OWNER (job.owner == seen.owner)
#endif
#ifdef NO_LEASE_CAS
#define SAME_LEASE true
#else
#define SAME_LEASE (NEEDS_LEASE || job.lease == seen.lease)
#endif

#define MINE (job.owner == me && job.attempt == seen.attempt)

inline fire(event) {
    d_step {
        decide(event);
        if
        :: edge != 0 && SAME_STATE && SAME_FAULT && SAME_ATTEMPT && SAME_OWNER && SAME_LEASE ->
            NEVER(ended_job_changed, ENDED(job.state));
            NEVER(blind_write, (job.state != seen.state || job.fault != seen.fault || job.count != seen.count ||
                                job.attempt != seen.attempt || job.owner != seen.owner));
            NEVER(late_write, (NEEDS_LEASE && !MINE));
            NEVER(attempt_reused, (event == E_CLAIM && seen.attempt < job.attempt));
            NEVER(live_lease_taken, (job.owner != NOBODY && job.owner != me && !job.lapsed && event != E_CANCEL));
            from = job.state;
            apply();
            NEVER(outside_table, (!LEGAL(event, from, job.state) || !FAULT_RULE(job.state, job.fault)));
            if
            :: event == E_FINISH -> finishes++; NEVER(finished_twice, finishes > 1)
            :: else
            fi;
            remember();
            won = true
        :: else -> won = false
        fi;
        edge = 0; from = 0;
        printf("fire %d %d %e %e %d -> %d %e %e %d %d %d %d\n", _pid, me, event, code, operator,
               won, job.state, job.fault, job.count, job.attempt, job.owner, job.lapsed)
    }
}

/* ---- a worker: claim, cut, heartbeat, rename, finish */

#ifdef SHARED_NAME
#define PRIVATE private[0]
#else
#define PRIVATE private[me]
#endif
#ifdef NOT_DETERMINISTIC
#define STAMP (WHOLE + me)
#else
#define STAMP WHOLE
#endif

inline cut() {
    PRIVATE = PART;
    d_step { PRIVATE = STAMP; stamp = STAMP; lost = !MINE }
}

inline publish() {
    d_step {
        PRIVATE != NOTHING ->
            NEVER(published_after_loss, lost);
            public = PRIVATE; PRIVATE = NOTHING; lost = false
    }
}

proctype worker(byte number) {
    CALLER(number);
end:
    do
    :: {
        atomic { job.state == S_RUN && job.fault == F_NONE && job.owner == NOBODY -> look() };    /* the queue */
        atomic {
            fire(E_CLAIM);
            if
            :: won
            :: else -> forget(); goto end
            fi
        };
        if
        :: atomic { code = F_RETRYABLE; fire(E_FAULT); forget() }
        :: atomic { code = F_FINAL; fire(E_FAULT); forget() }
        :: atomic { releases < RELEASES -> releases++; fire(E_RELEASE); forget() }
        :: cut();
#ifndef NO_LEASE_CHECK
           atomic {
               fire(E_HEARTBEAT);
               if
               :: won
               :: else -> PRIVATE = NOTHING; forget(); goto end
               fi
           };
#endif
           if
#ifdef FINISH_FIRST
           :: fire(E_FINISH); publish(); d_step { forget() }
#else
           :: publish(); atomic { fire(E_FINISH); forget() }
#endif
           :: atomic { PRIVATE = NOTHING; code = F_RETRYABLE; fire(E_FAULT); forget() }    /* the disk fails */
           fi
        fi
    } unless {
        d_step { killed[me] -> killed[me] = false; forget() }    /* a new process takes its place */
    }
    od
}

/* ---- everybody else */

proctype keeper() {
    CALLER(NOBODY);
end:
    do
#ifndef NO_REAPER
    :: atomic { job.owner != NOBODY && job.lapsed -> look(); seen.lapsed = true };
       atomic { fire(E_LOST); forget() }
#endif
    :: atomic { job.fault == F_RETRYABLE && job.owner == NOBODY && job.count < CEILING -> look() };
       atomic { fire(E_REVERT); forget() }
    :: atomic { job.fault == F_RETRYABLE && job.owner == NOBODY && job.count >= CEILING -> look(); code = F_FINAL };
       atomic { fire(E_GIVE_UP); forget() }
    od
}

proctype person() {    /* user, operator, or who closes a dependent with its jobs: does one thing, or nothing */
    CALLER(NOBODY);
    if
    :: atomic { job.state == S_PARSED -> look() }; atomic { fire(E_ACCEPT); forget() }
    :: atomic { !ENDED(job.state) -> look() }; atomic { fire(E_CANCEL); forget() }
    :: atomic { job.state == S_RUN -> look(); code = F_FINAL }; atomic { fire(E_GIVE_UP); forget() }
    :: atomic { job.fault == F_RETRYABLE -> look(); operator = true }; atomic { fire(E_REVERT); forget() }
    :: skip
    fi
}

proctype clock() {
end:
    do
    :: d_step { job.owner != NOBODY && !job.lapsed -> job.lapsed = true; printf("lapse\n") }
    od
}

proctype death() {
end:
    do
    :: d_step { deaths < DEATHS -> deaths++; killed[1] = true }
    :: d_step { deaths < DEATHS -> deaths++; killed[2] = true }
    od
}

proctype reader() {    /* of the file, at any time */
end:
    d_step { public == PART -> NEVER(half_published, true) }
}

proctype follower() {    /* of the database, and then of the file, at any time */
end:
    d_step { job.state == S_STOP && job.fault == F_NONE && public != result -> NEVER(result_not_in_file, true) }
}

init {
    atomic {
        job.fault = F_NONE;
        if    /* as the parser makes it; a job that is made stopped has a code */
        :: INITIAL(S_RUN) -> job.state = S_RUN
        :: INITIAL(S_PARSED) -> job.state = S_PARSED; run person()    /* one to accept it */
        :: INITIAL(S_STOP) -> job.state = S_STOP; job.fault = F_FINAL
        fi;
        printf("make %e %e\n", job.state, job.fault);
        run worker(1); run worker(2); run keeper(); run person();
        run clock(); run death(); run reader(); run follower()
    }
}

ltl ends { [] (job.state == S_RUN -> <> ENDED(job.state)) }
