// Tries several ways to run a step within the budgets and keeps the one that is predicted to be the fastest. What an
// attempt moves is known long before it has offsets, and so is what it takes at least. Attempts are told in the order
// of what they promise, until none promises to be faster than the best one. Threads make them ahead of that: what they
// have made needlessly is thrown away, so that the result is that of a single thread.
#include "plan/search.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/parallel.h"

enum { STRATEGIES = PB_STRATEGY_HOST + 1 };

// One unit of paging: large enough for the links and small enough to hide, so that little room does for many moves at
// once; and no more of them than can be planned in a second.
static uint64_t unit_bytes(const pb_graph *g, const pb_plan_request *request) {
    enum { MOST_UNITS = 640 };
    const uint64_t smallest = PB_CHUNK_BYTES / 4, share = request->budget[PB_TIER_DEVICE] / 8;
    uint64_t unit = 0;
    for (pb_vid v = 0; v < g->value_count; v++)
        if (g->values[v].class_ == PB_CLASS_STATE && g->values[v].persistent && g->values[v].alias == PB_NONE)
            unit += pb_value_bytes(&g->values[v]) / MOST_UNITS;
    if (unit < smallest) unit = smallest;
    if (unit > PB_CHUNK_BYTES) unit = PB_CHUNK_BYTES;
    return share < unit ? share : unit;
}

// Updates may run on the host only where what steers them is known when the step begins.
static bool can_update_on_host(const pb_graph *g) {
    bool any = false;
    for (uint32_t n = 0; n < g->node_count; n++) {
        if (g->nodes[n].op != PB_OP_ADAMW) continue;
        any = true;
        if (g->values[g->nodes[n].in[1]].class_ != PB_CLASS_INPUT) return false;
    }
    return any;
}

// The faster one, or, where that makes no difference, the one that moves less.
static bool is_better(const pb_program *a, const pb_program *b) {
    static const double difference = 0.001;
    if (fabs(a->seconds - b->seconds) > difference * b->seconds) return a->seconds < b->seconds;
    uint64_t a_bytes = 0, b_bytes = 0;
    for (int l = 0; l < PB_LINK_COUNT; l++) {
        a_bytes += a->moved[l];
        b_bytes += b->moved[l];
    }
    return a_bytes != b_bytes ? a_bytes < b_bytes : a->seconds < b->seconds;
}

static void note_needed(pb_outcome *o, const uint64_t needed[PB_TIER_COUNT]) {
    for (int t = 0; t < PB_TIER_COUNT; t++)
        if (needed[t] && needed[t] < o->needed[t]) o->needed[t] = needed[t];
}

void pb_outcome_add(pb_outcome *o, uint32_t way, pb_made *made) {
    o->unplaced |= made->unplaced;
    note_needed(o, made->needed);
    if (made->program && (!o->program || is_better(made->program, o->program))) {
        pb_program_destroy(o->program);
        o->program = made->program;
        o->seconds = made->seconds;
        o->way = way;
    } else {
        pb_program_destroy(made->program);
    }
    made->program = NULL;
}

// --- What there is to try ---

// Shares of the budgets that are left for moves. State that comes and goes wants some; what the host updates, little.
static const double reserves[] = {0, 0.02, 0.1, 0.25};
enum { RESERVES = sizeof reserves / sizeof *reserves, QUICK_LEVEL = 2, FIRST_RESERVE = -1 };

// Of a large budget no more than so many units are: what is on its way at once is no more in a large memory.
enum { MOST_MOVING = 24 };

typedef enum state {
    LISTED,
    IN_ESTIMATION,
    ESTIMATED,
    UNDER_WAY,
    MADE,
    TOLD,  // its result is part of the outcome
} state;

// One thing to try.
typedef struct candidate {
    uint32_t way;
    pb_attempt attempt;
    int level;      // its reserve, as one of reserves[]
    int direction;  // -1, 1: less or more room for moves than what was tried before; 0: neither
    bool unlike;    // may wait much less than what was tried of the strategy before
    bool varied;    // its variants are listed, where they are of use
    state state;
    pb_estimate estimate;
    pb_made made;
} candidate;

// The best of a way's strategy so far.
typedef struct record {
    pb_attempt attempt;
    double seconds, bound;  // and what was known beforehand that it would take at least; 0: there is none yet
} record;

// One of the graphs.
typedef struct way {
    const pb_graph *graph;
    bool done;                   // nothing of it is tried
    bool exhausted[STRATEGIES];  // a quick attempt without a reserve found no offsets on the device
    uint64_t unit;               // bytes
    pb_setting settings[STRATEGIES];
    record records[STRATEGIES];
} way;

typedef struct search {
    const pb_plan_request *request;
    pb_outcome *o;
    way *ways;
    uint32_t way_count;
    candidate *candidates;
    uint32_t count, room;
    // What threads share is theirs to change while they hold the lock.
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pb_status status;
    char message[512];
} search;

enum { MOST_OF_WAY = 64 };  // candidates: fewer than there are attempts that differ

static bool same_variant(pb_attempt a, pb_attempt b) {
    return a.strategy == b.strategy && a.gradients_stay == b.gradients_stay && a.gradients_first == b.gradients_first &&
           a.weights_first == b.weights_first && a.activations_first == b.activations_first;
}

// Nothing where there is no such level, and nothing twice.
static void list(search *s, uint32_t w, pb_attempt attempt, int level, int direction, bool unlike) {
    if (level < 0 || level >= RESERVES || s->count == s->room) return;
    for (uint32_t i = 0; i < s->count; i++) {
        candidate *c = &s->candidates[i];
        if (c->way != w || c->level != level || !same_variant(c->attempt, attempt)) continue;
        c->unlike |= unlike;
        return;
    }
    attempt.reserve = reserves[level];
    attempt.most_reserved = MOST_MOVING * s->ways[w].unit;
    s->candidates[s->count++] =
        (candidate){.way = w, .attempt = attempt, .level = level, .direction = direction, .unlike = unlike};
}

// Every strategy that a way has, with its first reserve or reserves[level].
static void list_strategies(search *s, uint32_t w, int level) {
    const pb_program *like = s->request->like;
    for (int i = 0; i < STRATEGIES; i++) {
        const bool on_host = i == PB_STRATEGY_HOST;
        if (like ? like->layout->host_updates != on_host : on_host && !can_update_on_host(s->ways[w].graph)) continue;
        const int first = on_host ? 1 : 2;
        list(s, w, (pb_attempt){.strategy = (pb_strategy)i}, level == FIRST_RESERVE ? first : level, 0, false);
    }
}

// Once a candidate of the host's is estimated: weights leave the device first, to come once more from the host; and,
// where the host is what lacks, gradients that the host updates from wait on the device, where there is room, for both
// are cheaper than state from the disk.
static void vary(search *s, candidate *c) {
    if (c->varied || c->direction || c->attempt.strategy != PB_STRATEGY_HOST || s->request->like) return;
    c->varied = true;
    const pb_attempt first = {.strategy = PB_STRATEGY_HOST, .weights_first = true};
    if (!s->request->quick) list(s, c->way, first, c->level, 0, false);
    if (!c->estimate.host_matters || !s->request->budget[PB_TIER_NVME]) return;
    pb_attempt stay = {.strategy = PB_STRATEGY_HOST, .gradients_first = true, .gradients_stay = true};
    list(s, c->way, stay, c->level, 0, false);
    stay.weights_first = true;
    if (!s->request->quick) list(s, c->way, stay, c->level, 0, false);
}

// What kernels set up at their first use is not made for several threads.
static pthread_mutex_t building = PTHREAD_MUTEX_INITIALIZER;

static pb_status find_setting(search *s, const candidate *c, pb_setting **result) {
    way *w = &s->ways[c->way];
    pb_setting *setting = &w->settings[c->attempt.strategy];
    pb_status status = PB_OK;
    pthread_mutex_lock(&building);
    if (!setting->pager.arena) status = pb_setting_build(w->graph, s->request, w->unit, c->attempt.strategy, setting);
    pthread_mutex_unlock(&building);
    *result = setting;
    return status;
}

// --- In which order ---

// The seconds that a candidate promises: programs of one strategy wait about as long beyond their bounds.
static double promise(const search *s, const candidate *c) {
    static const double surely = 2.0 / 3;
    const record *r = &s->ways[c->way].records[c->attempt.strategy];
    const double waits = r->bound > 0 && !c->unlike ? surely * (r->seconds / r->bound - 1) : 0;
    return c->estimate.bound * (1 + waits);
}

// The seconds that are to be beaten; INFINITY: any will do.
static double to_beat(const search *s) {
    const double limit = s->request->faster_than > 0 ? s->request->faster_than : INFINITY;
    return s->o->program && s->o->seconds < limit ? s->o->seconds : limit;
}

// More or less room is only of interest for what has won.
static bool is_of_interest(const search *s, const candidate *c) {
    return c->estimate.fits &&
           (!c->direction || same_variant(c->attempt, s->ways[c->way].records[c->attempt.strategy].attempt));
}

// Of the candidates whose state is from `first` to `last` the one that promises most; NULL: none promises to be faster
// than what there is.
static candidate *most_promising(search *s, state first, state last) {
    candidate *most = NULL;
    double least = to_beat(s);
    for (uint32_t i = 0; i < s->count; i++) {
        candidate *c = &s->candidates[i];
        if (c->state < first || c->state > last || !is_of_interest(s, c)) continue;
        if (promise(s, c) >= least) continue;
        least = promise(s, c);
        most = c;
    }
    return most;
}

// A gap from which on the two directions of a link take turns, since lives had to be shortened for all to find a place.
static const double TAKES_TURNS = 1.4;

// Takes over what has come of a candidate, and lists what is worth trying then.
static void tell(search *s, candidate *c) {
    record *r = &s->ways[c->way].records[c->attempt.strategy];
    const double seconds = c->made.program ? c->made.seconds : 0;
    c->state = TOLD;
    pb_outcome_add(s->o, c->way, &c->made);
    // With more room they go side by side.
    if (c->attempt.strategy == PB_STRATEGY_STREAM && !c->direction && seconds > TAKES_TURNS * c->made.bound)
        list(s, c->way, c->attempt, c->level + 1, 1, true);
    if (!(seconds > 0) || (r->seconds > 0 && seconds >= r->seconds)) return;
    *r = (record){c->attempt, seconds, c->estimate.bound};
    const bool levels = !c->attempt.activations_first;  // or they were tried before
    for (int step = -1; step <= 1 && levels; step += 2)
        if (!c->direction || c->direction == step) list(s, c->way, c->attempt, c->level + step, step, false);
    // Gradients leave the host first rather than state.
    pb_attempt other = c->attempt;
    other.gradients_first = true;
    if (c->estimate.host_matters && s->request->budget[PB_TIER_NVME]) list(s, c->way, other, c->level, 0, false);
    // Activations leave in the place of some state.
    other = c->attempt;
    other.activations_first = true;
    if (c->attempt.strategy == PB_STRATEGY_STREAM && c->made.turning) list(s, c->way, other, c->level, 0, false);
}

// --- Threads ---

static void fail(search *s, pb_status status) {
    if (status == PB_OK || s->status != PB_OK) return;
    s->status = status;
    snprintf(s->message, sizeof s->message, "%s", pb_error_message());
}

static candidate *first_in(search *s, state wanted) {
    for (uint32_t i = 0; i < s->count; i++)
        if (s->candidates[i].state == wanted) return &s->candidates[i];
    return NULL;
}

// Without the lock, which it is called with.
static void estimate(search *s, candidate *c) {
    pb_setting *setting;
    c->state = IN_ESTIMATION;
    pthread_mutex_unlock(&s->lock);
    pb_status status = find_setting(s, c, &setting);
    if (status == PB_OK) status = pb_attempt_estimate(setting, c->attempt, &c->estimate);
    pthread_mutex_lock(&s->lock);
    c->state = ESTIMATED;
    fail(s, status);
    pthread_cond_broadcast(&s->changed);
}

static void make(search *s, candidate *c) {
    c->state = UNDER_WAY;
    pthread_mutex_unlock(&s->lock);
    const pb_status status =
        pb_attempt_make(&s->ways[c->way].settings[c->attempt.strategy], c->attempt, false, &c->made);
    pthread_mutex_lock(&s->lock);
    c->state = MADE;
    fail(s, status);
    pthread_cond_broadcast(&s->changed);
}

static bool all_estimated(search *s) {
    return !first_in(s, LISTED) && !first_in(s, IN_ESTIMATION);
}

// Does not depend on the order in which threads have come to what there is: nothing is decided before all is estimated
// that is listed, and what is told next is what promises most, made or not.
static void decide(search *s) {
    while (all_estimated(s)) {
        const uint32_t before = s->count;
        for (uint32_t i = 0; i < before; i++) vary(s, &s->candidates[i]);
        if (s->count > before) return;
        candidate *c = most_promising(s, ESTIMATED, MADE);
        if (!c || c->state != MADE) return;
        tell(s, c);
    }
}

static void *work(void *argument) {
    search *s = argument;
    pthread_mutex_lock(&s->lock);
    while (s->status == PB_OK) {
        candidate *c;
        decide(s);
        if ((c = first_in(s, LISTED)))
            estimate(s, c);
        else if (first_in(s, IN_ESTIMATION))
            pthread_cond_wait(&s->changed, &s->lock);
        else if ((c = most_promising(s, ESTIMATED, ESTIMATED)))
            make(s, c);
        else if (most_promising(s, UNDER_WAY, MADE))
            pthread_cond_wait(&s->changed, &s->lock);
        else
            break;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

// Every strategy, and what follows from that.
static pb_status explore(search *s, int level) {
    enum { MOST_THREADS = 4 };
    pthread_t threads[MOST_THREADS];
    int count = 0;
    for (uint32_t w = 0; w < s->way_count; w++)
        if (!s->ways[w].done) list_strategies(s, w, level);
    while (count + 1 < MOST_THREADS && count + 1 < pb_threads() && pthread_create(&threads[count], NULL, work, s) == 0)
        count++;
    work(s);
    while (count > 0) pthread_join(threads[--count], NULL);
    for (uint32_t i = 0; i < s->count; i++) {
        candidate *c = &s->candidates[i];
        if (c->state == ESTIMATED || c->state == MADE) s->o->slower |= is_of_interest(s, c);
        if (c->state == ESTIMATED) note_needed(s->o, c->estimate.needed);
    }
    return s->status == PB_OK ? PB_OK : pb_error(s->status, "%s", s->message);
}

// --- Whatever fits ---

// The strategies in turn, with no estimates, until one fits.
static pb_status try_quickly(search *s, int level) {
    const uint32_t begin = s->count;
    for (uint32_t w = 0; w < s->way_count; w++)
        if (!s->ways[w].done) list_strategies(s, w, level);
    for (uint32_t i = begin; i < s->count && !s->o->program; i++) {
        candidate *c = &s->candidates[i];
        bool *exhausted = &s->ways[c->way].exhausted[c->attempt.strategy];
        pb_setting *setting;
        PB_RETURN_IF(find_setting(s, c, &setting));
        PB_RETURN_IF(pb_attempt_make(setting, c->attempt, *exhausted, &c->made));
        const uint64_t *needed = c->made.needed;
        *exhausted |= s->request->quick && c->made.unplaced && !(c->attempt.reserve > 0) && needed[PB_TIER_DEVICE];
        c->estimate.host_matters = needed[PB_TIER_HOST] || needed[PB_TIER_NVME];
        c->state = TOLD;
        pb_outcome_add(s->o, c->way, &c->made);
        vary(s, c);
    }
    return PB_OK;
}

// --- All of it ---

// A program that has to do with another's decisions, and a quick plan, take the first that fits.
static pb_status run(search *s) {
    const pb_plan_request *request = s->request;
    pb_outcome *o = s->o;
    pb_status (*const look)(search *, int) = request->quick || request->like ? try_quickly : explore;
    if (!request->quick) PB_RETURN_IF(look(s, FIRST_RESERVE));
    if (!o->program && !o->slower) PB_RETURN_IF(look(s, 0));
    // Without a reserve the least leaves the device. What does not fit then may only do with one where offsets were not
    // found, or where it is what passes through the host that takes too much of it.
    const bool passes = o->needed[PB_TIER_HOST] < UINT64_MAX && request->budget[PB_TIER_NVME];
    for (int level = RESERVES - 1; level > 0 && !o->program && !o->slower && (o->unplaced || passes); level--)
        if (!request->quick || level == QUICK_LEVEL) PB_RETURN_IF(look(s, level));
    return PB_OK;
}

pb_status pb_search(const pb_graph *const *graphs, uint32_t count, const bool *done, const pb_plan_request *request,
                    pb_outcome *outcome) {
    search s = {.request = request,
                .o = outcome,
                .ways = calloc(count, sizeof *s.ways),
                .way_count = count,
                .candidates = calloc((size_t)count * MOST_OF_WAY, sizeof *s.candidates),
                .room = count * MOST_OF_WAY,
                .lock = PTHREAD_MUTEX_INITIALIZER,
                .changed = PTHREAD_COND_INITIALIZER};
    pb_status status = PB_OK;
    if (!s.ways || !s.candidates) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    for (uint32_t w = 0; w < count; w++) {
        s.ways[w].graph = graphs[w];
        s.ways[w].done = done[w];
        s.ways[w].unit = unit_bytes(graphs[w], request);
    }
    status = run(&s);
fail:
    for (uint32_t i = 0; i < s.count; i++) pb_program_destroy(s.candidates[i].made.program);
    for (uint32_t w = 0; w < count && s.ways; w++)
        for (int i = 0; i < STRATEGIES; i++) pb_setting_deinit(&s.ways[w].settings[i]);
    free(s.ways);
    free(s.candidates);
    return status;
}
