#include "base/gate.h"

#include <linux/futex.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

// Short: lanes mostly wait for copies of megabytes, and the processors have other work.
enum { SPINS = 100 };

uint64_t pb_gate_value(const pb_gate *gate) {
    return atomic_load(&gate->value);
}

// Whoever goes to sleep has read the word before the value and announced itself before the system compares the word:
// either it is counted here, or the system finds another word than it read.
static void wake(pb_gate *gate) {
    atomic_fetch_add(&gate->word, 1);
    if (atomic_load(&gate->sleepers)) syscall(SYS_futex, &gate->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void pb_gate_set(pb_gate *gate, uint64_t value) {
    if (value <= atomic_load(&gate->value)) return;
    atomic_store(&gate->value, value);
    wake(gate);
}

void pb_gate_add(pb_gate *gate) {
    atomic_fetch_add(&gate->value, 1);
    wake(gate);
}

static bool look(pb_gate *gate, uint64_t value) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&gate->value) >= value) return true;
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    }
    return false;
}

void pb_gate_wait(pb_gate *gate, uint64_t value) {
    if (look(gate, value)) return;
    while (atomic_load(&gate->value) < value) {
        const uint32_t word = atomic_load(&gate->word);
        if (atomic_load(&gate->value) >= value) return;
        atomic_fetch_add(&gate->sleepers, 1);
        syscall(SYS_futex, &gate->word, FUTEX_WAIT_PRIVATE, word, NULL, NULL, 0);
        atomic_fetch_sub(&gate->sleepers, 1);
    }
}
