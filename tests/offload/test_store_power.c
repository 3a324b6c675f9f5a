// test: links=offload,base timeout=300
// Power loss, as a model: the writes and fsyncs of a run are recorded; at every moment, what an fsync covered is on the
// disk, and of the rest any part, in any order, torn at 512 or 4096 bytes. Each such file holds the last commit that
// had returned or the one that was being made, whole. So it does when the power goes during the opening after a kill.
// usage: test_store_power [DROP POINTS [STATES]]: at least so many.
#include "check.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scratch.h"
#include "support_store.h"

enum { MOST_EVENTS = 4096, MOST_IMAGE = 1 << 19, MOST_RECORDED = 64 << 20 };

typedef enum event_kind { BEGIN, END, SYNC_BEGIN, SYNC_END } event_kind;

typedef struct event {
    event_kind kind;
    int other;  // BEGIN: its end; SYNC_END: its beginning; -1: none yet
    const void *source;
    uint64_t offset;
    size_t bytes;
    const unsigned char *data;
    bool good;      // SYNC_END
    int committed;  // commits that had returned
} event;

typedef struct recorder {
    pthread_mutex_t lock;
    event events[MOST_EVENTS];
    int count;
    unsigned char *data;
    size_t used;
    const _Atomic int *committed;
    pb_store_hook hook;
} recorder;

// Writes of the file and its fsyncs; what makes its name last does not cover its bytes.
static bool is_recorded(const pb_store_call *call) {
    struct stat info;
    return call->op == PB_STORE_WRITE ||
           (call->op == PB_STORE_SYNC && !fstat(call->fd, &info) && S_ISREG(info.st_mode));
}

static bool record_begin(void *context, pb_store_call *call, long *result) {
    recorder *r = context;
    (void)result;
    if (!is_recorded(call)) return false;
    pthread_mutex_lock(&r->lock);
    if (r->count == MOST_EVENTS || r->used + call->bytes > MOST_RECORDED) abort();
    event *e = &r->events[r->count++];
    *e = (event){.kind = call->op == PB_STORE_WRITE ? BEGIN : SYNC_BEGIN, .other = -1, .committed = *r->committed};
    if (e->kind == BEGIN) {
        e->source = call->data;
        e->offset = call->offset;
        e->bytes = call->bytes;
        e->data = memcpy(r->data + r->used, call->data, call->bytes);
        r->used += call->bytes;
    }
    pthread_mutex_unlock(&r->lock);
    return false;
}

static long record_end(void *context, const pb_store_call *call, long result) {
    recorder *r = context;
    if (!is_recorded(call)) return result;
    pthread_mutex_lock(&r->lock);
    int begin = r->count - 1;
    const event_kind kind = call->op == PB_STORE_WRITE ? BEGIN : SYNC_BEGIN;
    for (; begin >= 0; begin--) {
        const event *e = &r->events[begin];
        if (e->kind == kind && e->other < 0 &&
            (kind == SYNC_BEGIN || (e->source == call->data && e->offset == call->offset)))
            break;
    }
    if (begin < 0 || r->count == MOST_EVENTS) abort();
    r->events[begin].other = r->count;
    if (kind == BEGIN && result >= 0 && (size_t)result < r->events[begin].bytes)
        r->events[begin].bytes = (size_t)result;
    r->events[r->count++] = (event){
        .kind = kind == BEGIN ? END : SYNC_END, .other = begin, .good = result == 0, .committed = *r->committed};
    pthread_mutex_unlock(&r->lock);
    return result;
}

// --- The file after the power went before event `point` ---

static unsigned char image[MOST_IMAGE];
static size_t image_bytes;
static uint64_t random_state = 5;

static uint64_t pick(uint64_t below) {
    return store_random(&random_state) % below;
}

// The writes that are complete before this event are on the disk.
static int durable_until(const recorder *r, int point, bool lying) {
    for (int i = point - 1; i >= 0 && !lying; i--)
        if (r->events[i].kind == SYNC_END && r->events[i].good) return r->events[i].other;
    return lying ? point / 3 : 0;
}

static void apply(const event *e, bool torn) {
    const size_t unit = pick(2) ? 512 : 4096;
    const bool prefix = pick(2), some = torn;
    const size_t kept = some && prefix ? pick(e->bytes / unit + 1) * unit : e->bytes;
    for (size_t at = 0; at < kept; at += unit) {
        if (some && !prefix && pick(2)) continue;
        const size_t part = kept - at < unit ? kept - at : unit;
        if (e->offset + at + part > image_bytes) abort();
        memcpy(image + e->offset + at, e->data + at, part);
    }
}

typedef enum power_loss { DROP_ALL, KEEP_ALL, ANY_PART } power_loss;

// `lying`: a disk that takes an fsync for done when it is not, to see that the model can tell.
static void make_image(const recorder *r, int point, power_loss loss, bool lying) {
    static int pending[MOST_EVENTS];
    int count = 0;
    const int durable = durable_until(r, point, lying);
    memset(image, 0, image_bytes);
    for (int i = 0; i < point; i++) {
        const event *e = &r->events[i];
        if (e->kind != BEGIN) continue;
        if (e->other >= 0 && e->other < durable)
            apply(e, false);
        else
            pending[count++] = i;
    }
    for (int i = 0; i < count && loss == ANY_PART; i++) {
        const int j = i + (int)pick((uint64_t)(count - i)), swapped = pending[i];
        pending[i] = pending[j];
        pending[j] = swapped;
    }
    for (int i = 0; i < count; i++)
        if (loss == KEEP_ALL || (loss == ANY_PART && pick(3)))
            apply(&r->events[pending[i]], loss == ANY_PART && pick(3) == 0);
}

static void put_image(const store_run *run) {
    char path[1100];
    snprintf(path, sizeof path, "%s/pagebooth-run.swap", run->directory);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK_OK(pb_fs_pwrite(fd, image, image_bytes, 0, path));
    close(fd);
}

// Whether the image is commit `least`, or `most`, whole; *found says which.
static bool is_good(store_run run, uint64_t least, uint64_t most, uint64_t *found) {
    put_image(&run);
    *found = 99;
    return store_run_check(&run, found) == PB_OK && *found >= least && *found <= most;
}

static long drop_points, states, bad;

static void check_state(const recorder *r, const store_run *run, int point, power_loss loss) {
    uint64_t found = 0;
    const uint64_t committed = (uint64_t)(point < r->count ? r->events[point].committed : *r->committed);
    make_image(r, point, loss, false);
    const bool good = is_good(*run, committed, committed + 1, &found);
    bad += !good;
    CHECK_THAT(good, "event %d of %d, %s: %d commits, found %d: %s", point, r->count,
               loss == DROP_ALL   ? "all dropped"
               : loss == KEEP_ALL ? "all kept"
                                  : "any part",
               (int)committed, (int)found, pb_error_message());
}

static void start_recorder(recorder *r, const _Atomic int *committed) {
    r->count = 0;
    r->used = 0;
    r->committed = committed;
    r->hook = (pb_store_hook){r, record_begin, record_end};
}

// Killed before event `point`, opened again, and the power goes during that: the opening's events follow those of
// before. Once it is open, the state that it found stays.
static void check_second_loss(recorder *r, store_run run, int point) {
    const int count = r->count;
    const size_t used = r->used;
    const uint64_t committed = (uint64_t)r->events[point].committed;
    uint64_t first = 0, found = 0;
    // What was under way at the kill is complete, as far as reading goes, but on the disk only when an fsync says so.
    static recorder again;
    pthread_mutex_init(&again.lock, NULL);
    start_recorder(&again, r->committed);
    again.data = r->data;
    memcpy(again.events, r->events, (size_t)point * sizeof *again.events);
    again.count = point;
    again.used = used;
    for (int i = 0; i < point; i++)
        if (again.events[i].other >= point) again.events[i].other = -1;
    for (int i = 0; i < point;
         i++)  // a killed process's fsync covers nothing, and its writes end before the next one's
        if (again.events[i].kind == BEGIN && again.events[i].other < 0) again.events[i].other = point;
    again.events[again.count++] = (event){.kind = END, .other = -1};
    make_image(r, point, KEEP_ALL, false);
    run.check_hook = &again.hook;
    CHECK(is_good(run, committed, committed + 1, &first));
    for (int at = point; at <= again.count && first > 0; at++) {
        make_image(&again, at, ANY_PART, false);
        store_run quiet = run;
        quiet.check_hook = NULL;
        const bool whole = at == again.count;
        const bool good = is_good(quiet, whole ? first : committed, whole ? first : committed + 1, &found);
        states++;
        bad += !good;
        CHECK_THAT(good, "second loss, event %d, then %d of %d: %d commits, first found %d, then %d: %s", point, at,
                   again.count, (int)committed, (int)first, (int)found, pb_error_message());
    }
    r->count = count;
    r->used = used;
    pthread_mutex_destroy(&again.lock);
}

int main(int argc, char **argv) {
    const long wanted_points = argc > 1 ? atol(argv[1]) : 100, wanted_states = argc > 2 ? atol(argv[2]) : 400;
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 0);  // the model needs no disk
    static recorder r;
    _Atomic int committed = 0;
    pthread_mutex_init(&r.lock, NULL);
    r.data = malloc(MOST_RECORDED);
    if (!r.data) return 1;
    store_run run = {
        .directory = scratch_path("swap"), .memory = store_memory(store_run_bytes), .committed = &committed};
    long lies_told = 0, runs = 0;
    for (; drop_points < wanted_points || states < wanted_states || runs < 2; runs++) {
        uint64_t found = 0;
        run.engine = runs % 2 ? PB_STORE_THREADS : PB_STORE_URING;
        run.hook = NULL;
        if (store_run_check(&run, &found) == PB_ERR_UNSUPPORTED) run.engine = PB_STORE_THREADS;
        committed = 0;
        start_recorder(&r, &committed);
        run.hook = &r.hook;
        CHECK_OK(store_run_all(&run));
        CHECK(committed == STORE_COMMITS && r.count > 100);
        char path[1100];
        uint64_t bytes = 0;
        int fd = -1;
        snprintf(path, sizeof path, "%s/pagebooth-run.swap", run.directory);
        CHECK_OK(pb_fs_open_read(path, &fd, &bytes));
        close(fd);
        if (bytes > MOST_IMAGE) return 1;
        image_bytes = bytes;
        // In a short test, some of the points; each with all dropped and a few more.
        const int step = wanted_points >= 500 ? 1 : 1 + 2 * r.count / (int)wanted_points;
        for (int point = (int)pick((uint64_t)step); point <= r.count; point += step) {
            check_state(&r, &run, point, DROP_ALL);
            check_state(&r, &run, point, KEEP_ALL);
            drop_points++;
            for (long i = 0; i <= wanted_states / wanted_points; i++, states++) check_state(&r, &run, point, ANY_PART);
        }
        for (int i = 0; i < 8; i++) check_second_loss(&r, run, (int)pick((uint64_t)r.count));
        // On a disk that lies about its fsync, commits are lost or torn: the model sees what it is to see.
        for (int i = 0; i < 40; i++) {
            const int point = r.count / 2 + (int)pick((uint64_t)r.count / 2);
            const uint64_t least = (uint64_t)r.events[point].committed;
            make_image(&r, point, ANY_PART, true);
            lies_told += !is_good(run, least, least + 1, &found);
        }
    }
    printf("%ld runs, %ld drop points, %ld generated states, %ld bad; on a lying disk %ld of %ld\n", runs, drop_points,
           states, bad, lies_told, 40 * runs);
    CHECK(bad == 0 && lies_told > 10 * runs);
    free(run.memory);
    free(r.data);
    scratch_remove();
    return CHECK_DONE();
}
