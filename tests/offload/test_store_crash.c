// test: links=offload,base timeout=300
// The process is killed before and after every call that the store makes of the system. The file then holds the last
// commit that returned or the one after it, whole. usage: test_store_crash [ROUNDS OF RANDOM KILLS]
#include "check.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "scratch.h"
#include "support_store.h"

// Whether the child was killed; its exit code is the run's success.
static bool run_in_child(const store_run *run, long nanoseconds) {
    int result = 0;
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        alarm(30);
        _exit(store_run_all(run) != PB_OK);
    }
    if (nanoseconds) {
        nanosleep(&(struct timespec){.tv_nsec = nanoseconds}, NULL);
        kill(child, SIGKILL);
    }
    CHECK(waitpid(child, &result, 0) == child);
    CHECK_THAT(WIFEXITED(result) ? WEXITSTATUS(result) == 0 : WTERMSIG(result) == SIGKILL, "the run failed: %d",
               result);
    return WIFSIGNALED(result);
}

// The lock of a killed process goes with the last of its requests to the ring, which a busy system ends when it comes
// to it: the store waits less than a second for that, this test longer.
static pb_status check_file(const store_run *run, uint64_t *found) {
    enum { TRIES = 30 };
    pb_status status = store_run_check(run, found);
    for (int i = 1; i < TRIES && status == PB_ERR_IO && strstr(pb_error_message(), "in use by another process"); i++)
        status = store_run_check(run, found);
    return status;
}

static void check_kill(const store_run *run, const char *moment, long number, long nanoseconds, long *killed) {
    uint64_t found = 0;
    *run->committed = 0;
    *killed += run_in_child(run, nanoseconds);
    CHECK_THAT(check_file(run, &found) == PB_OK, "%s %ld: %s", moment, number, pb_error_message());
    CHECK_THAT(found == (uint64_t)*run->committed || found == (uint64_t)*run->committed + 1,
               "%s %ld: %d commits returned, commit %d was found", moment, number, *run->committed, (int)found);
}

int main(int argc, char **argv) {
    const long rounds = argc > 1 ? atol(argv[1]) : 50;
    if (!access("/dev/shm", W_OK)) setenv("TMPDIR", "/dev/shm", 0);
    _Atomic int *committed = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (committed == MAP_FAILED) return 1;
    store_run run = {
        .directory = scratch_path("swap"), .memory = store_memory(store_run_bytes), .committed = committed};
    uint64_t random = 7;
    long killed = 0, kills = 0;
    for (int engine = PB_STORE_URING; engine <= PB_STORE_THREADS; engine++) {
        uint64_t found = 0;
        run.engine = (pb_store_engine)engine;
        run.hook = NULL;
        if (store_run_check(&run, &found) == PB_ERR_UNSUPPORTED) continue;
        for (int fault = FAULT_KILL_BEFORE; fault <= FAULT_KILL_AFTER; fault++) {
            const long before = killed;
            long at = 0, first_unkilled = 0;
            // The number of calls differs by a few from run to run: the end is where runs come through.
            while (first_unkilled < 8 && at < 10000) {
                store_injector injector;
                store_injector_init(&injector, ++at, (store_fault)fault, false, NULL);
                run.hook = &injector.hook;
                const long so_far = killed;
                check_kill(&run, store_fault_name((store_fault)fault), at, 0, &killed);
                first_unkilled += killed == so_far;
            }
            CHECK(killed - before > 50);
            kills += killed - before;
        }
        run.hook = NULL;
        // Until so many were killed: some runs are through before.
        const long before = killed;
        for (long i = 0; killed - before < rounds && i < 40 * rounds; i++) {
            const long nanoseconds = 1 + (long)(store_random(&random) % 12000000);
            check_kill(&run, "nanosecond", nanoseconds, nanoseconds, &killed);
        }
        CHECK(killed - before == rounds);
    }
    printf("%ld kills at calls, %ld at random moments\n", kills, killed - kills);
    free(run.memory);
    munmap(committed, 4096);
    scratch_remove();
    return CHECK_DONE();
}
