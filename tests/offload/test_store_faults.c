// test: links=offload,base timeout=300
// Every call that the store makes of the system fails, once or from then on, in every way that calls fail; with
// io_uring and with threads. What comes of it is the right bytes or an error that names the file, and never a hang;
// and the file that is left holds the last commit that returned or the one after it. usage: test_store_faults [DELAY]:
// with a delay, in milliseconds, only delays of that length.
#include "check.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scratch.h"
#include "support_store.h"

enum { LIMIT_SECONDS = 30 };

static long cases, completed, refused;
static char progress[200];  // the case under way

static void on_alarm(int signal) {
    (void)signal;
    const ssize_t written = write(STDERR_FILENO, progress, strlen(progress));
    _exit(written ? 1 : 2);
}

static void check_case(store_run run, store_injector *injector) {
    _Atomic int committed = 0;
    uint64_t found = 0;
    char message[600];
    run.hook = &injector->hook;
    run.committed = &committed;
    alarm(LIMIT_SECONDS);  // a hang ends the test and is named
    snprintf(progress, sizeof progress, "hangs: %s at call %ld, engine %d, lasting %d\n",
             store_fault_name(injector->fault), injector->at, (int)run.engine, injector->lasting);
    const pb_status status = store_run_all(&run);
    snprintf(message, sizeof message, "%s", status == PB_OK ? "no error" : pb_error_message());
    const pb_status after = store_run_check(&run, &found);
    alarm(0);
    cases += injector->struck;
    completed += injector->struck && status == PB_OK;
    refused += injector->struck && status != PB_OK;
#define CASE "%s at call %ld, %s%s (%s): "
#define CASE_OF                                                                                             \
    store_fault_name(injector->fault), injector->at, run.engine == PB_STORE_URING ? "io_uring" : "threads", \
        injector->lasting ? ", lasting" : "", message
    CHECK_THAT(status == PB_OK || status == PB_ERR_IO || status == PB_ERR_UNSUPPORTED, CASE "status %d", CASE_OF,
               (int)status);
    CHECK_THAT(status != PB_ERR_IO || strstr(message, run.directory), CASE "the message names no file", CASE_OF);
    // A bit that flips on its way to the disk is found by whoever reads it next.
    if (injector->fault == FAULT_FLIP && after == PB_ERR_IO) return;
    CHECK_THAT(after == PB_OK, CASE "then %s", CASE_OF, pb_error_message());
    CHECK_THAT(found == (uint64_t)committed || (status != PB_OK && found == (uint64_t)committed + 1),
               CASE "%d commits, found %d", CASE_OF, committed, (int)found);
}

// The number of calls of a run that nothing happens to.
static long count_calls(store_run run) {
    store_injector injector;
    _Atomic int committed = 0;
    uint64_t found = 0;
    store_injector_init(&injector, 0, FAULT_EIO, false, NULL);
    run.hook = &injector.hook;
    run.committed = &committed;
    CHECK_OK(store_run_all(&run));
    CHECK_OK(store_run_check(&run, &found));
    CHECK(found == STORE_COMMITS && committed == STORE_COMMITS);
    return injector.calls;
}

int main(int argc, char **argv) {
    const bool only_delays = argc > 1;
    if (only_delays) store_delay_ms = atol(argv[1]);
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 0);  // a disk's fsync is most of the time
    signal(SIGALRM, on_alarm);
    void *flipped = store_memory(STORE_FLIPPED_BYTES);
    store_run run = {.directory = scratch_path("swap"), .memory = store_memory(store_run_bytes)};
    int engines = 0;
    for (int engine = PB_STORE_URING; engine <= PB_STORE_THREADS; engine++) {
        run.engine = (pb_store_engine)engine;
        uint64_t found = 0;
        if (store_run_check(&run, &found) == PB_ERR_UNSUPPORTED) {
            printf("no io_uring here: threads only\n");
            continue;
        }
        const long calls = count_calls(run);
        engines++;
        for (int fault = only_delays ? FAULT_DELAY : 0; fault < (only_delays ? FAULT_DELAY + 1 : FAULT_KINDS); fault++)
            for (long at = 1; at <= calls; at++) {
                store_injector injector;
                store_injector_init(&injector, at, (store_fault)fault, false, flipped);
                check_case(run, &injector);
                // A full disk and a dead one stay so. Passing errors that do not pass take a while to give up on.
                if (fault > FAULT_ENOSPC && !(fault == FAULT_EAGAIN && at % 64 == 0)) continue;
                store_injector_init(&injector, at, (store_fault)fault, true, flipped);
                check_case(run, &injector);
            }
        printf("%s: %ld calls\n", engine == PB_STORE_URING ? "io_uring" : "threads", calls);
    }
    printf("%ld faults: %ld runs came through, %ld ended with an error\n", cases, completed, refused);
    CHECK(completed > 0 && (refused > 0) == !only_delays);
    CHECK(cases >= (only_delays ? 100 : engines == 2 ? 5000 : 2000));
    free(run.memory);
    free(flipped);
    scratch_remove();
    return CHECK_DONE();
}
