// test: links=base
// Gates: two threads that take turns, many sleepers on one value, values that do not grow.
#include "check.h"

#include <pthread.h>

#include "base/gate.h"

enum { TURNS = 20000, SLEEPERS = 6, ROUNDS = 400 };

static pb_gate ping, pong, begun, ended[SLEEPERS];
static int shared;
static long sums[SLEEPERS];

static void *answer(void *unused) {
    for (uint64_t turn = 1; turn <= TURNS; turn++) {
        pb_gate_wait(&ping, turn);
        shared++;
        pb_gate_set(&pong, turn);
    }
    return unused;
}

static void take_turns(void) {
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, answer, NULL));
    for (uint64_t turn = 1; turn <= TURNS; turn++) {
        shared++;
        pb_gate_set(&ping, turn);
        pb_gate_wait(&pong, turn);
    }
    pthread_join(thread, NULL);
    CHECK(shared == 2 * TURNS);
}

static void *sleeper(void *context) {
    const int me = (int)((pb_gate *)context - ended);
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        pb_gate_wait(&begun, round);
        sums[me] += shared;
        pb_gate_set(&ended[me], round);
    }
    return NULL;
}

static void wake_many(void) {
    pthread_t threads[SLEEPERS];
    long sum = 0;
    for (int i = 0; i < SLEEPERS; i++) CHECK(!pthread_create(&threads[i], NULL, sleeper, &ended[i]));
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        sum += shared = (int)round * 3;
        pb_gate_add(&begun);
        for (int i = 0; i < SLEEPERS; i++) pb_gate_wait(&ended[i], round);
    }
    for (int i = 0; i < SLEEPERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(sums[i] == sum);
    }
}

int main(void) {
    take_turns();
    wake_many();
    pb_gate gate = {0};
    pb_gate_set(&gate, 7);
    pb_gate_set(&gate, 5);
    CHECK(pb_gate_value(&gate) == 7);
    pb_gate_wait(&gate, 7);
    pb_gate_wait(&gate, 3);
    return CHECK_DONE();
}
