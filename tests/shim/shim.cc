// The shim's scheduler: fibers, barriers, shuffles, shared memory. One launch at a time, from one thread.
#include "shim_runtime.h"

#include <stdarg.h>

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr unsigned MOST_THREADS = 1024, WARP = 32, FILL = 0xCB;
constexpr size_t MOST_SHARED = 48 * 1024, STACK = 256 * 1024;

enum thread_state { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

struct thread {
    shim_fiber fiber;
    thread_state state;
    bool block_parity, warp_parity;
};

thread threads[MOST_THREADS];
shim_fiber scheduler;
thread *current;
void (*run_kernel)(void *);
void *run_context;
unsigned at_block_barrier, at_warp_barrier[MOST_THREADS / WARP];
bool block_any, block_result[2];
unsigned char shuffled[MOST_THREADS / WARP][2][WARP][8];
uint64_t threads_run;

struct {
    shim_order order;
    uint64_t random;
} choice;

struct {
    const char *file;
    int line;
    bool reached;
    char place[256];
} barriers[256];
int barrier_count, skipped = -1;

// Arrays of SHARED; `launch`: the last one that came by.
struct {
    void *memory;
    size_t bytes;
    uint64_t launch;
} shared_arrays[256];
int shared_count;
void *dynamic_shared;
size_t dynamic_bytes, shared_bytes;  // shared_bytes: of the launch, with the arrays that it has come by
uint64_t launches;

// Where the first thread of a warp, or of the block, waits, so that the others can be held against it.
struct place {
    const char *file;
    int line;
} warp_place[MOST_THREADS / WARP], block_place;

struct {
    const char *op;
    bool expected;
    int count;
    char text[512];
} faults;

unsigned number_of(const thread *t) {
    return (unsigned)(t - threads);
}

[[noreturn]] void give_up(const char *what, const char *op) {
    fprintf(stderr, "shim: %s: %s\n", op, what);
    abort();
}

void give_way() {
    shim_fiber_switch(&current->fiber, &scheduler);
}

// The whole life of a fiber: one kernel thread after another.
void live(void *) {
    for (;;) {
        run_kernel(run_context);
        current->state = DONE;
        give_way();
    }
}

int barrier_at(const char *file, int line) {
    for (int i = 0; i < barrier_count; i++)
        if (barriers[i].line == line && !strcmp(barriers[i].file, file)) {
            barriers[i].reached = true;
            return i;
        }
    if (barrier_count == 256) give_up("more than 256 barriers", file);
    const char *name = strrchr(file, '/');
    snprintf(barriers[barrier_count].place, sizeof barriers[0].place, "%s:%d", name ? name + 1 : file, line);
    barriers[barrier_count].file = file;
    barriers[barrier_count].line = line;
    barriers[barrier_count].reached = true;
    return barrier_count++;
}

void meet(place *first, bool is_first, const char *file, int line, const char *who) {
    if (is_first) *first = {file, line};
    if (first->line != line || strcmp(first->file, file))
        shim_fault("threads of one %s wait at %s:%d and at %s:%d", who, first->file, first->line, file, line);
}

void wait_for_block(const char *file, int line) {
    meet(&block_place, at_block_barrier == 0, file, line, "block");
    if (++at_block_barrier < blockDim.x) {
        current->state = AT_BLOCK_BARRIER;
        give_way();
        return;
    }
    at_block_barrier = 0;
    block_result[current->block_parity] = block_any;
    block_any = false;
    for (unsigned i = 0; i < blockDim.x; i++)
        if (threads[i].state == AT_BLOCK_BARRIER) threads[i].state = READY;
}

void wait_for_warp(const char *file, int line) {
    const unsigned warp = number_of(current) / WARP;
    meet(&warp_place[warp], at_warp_barrier[warp] == 0, file, line, "warp");
    if (++at_warp_barrier[warp] < WARP) {
        current->state = AT_WARP_BARRIER;
        give_way();
        return;
    }
    at_warp_barrier[warp] = 0;
    for (unsigned i = warp * WARP; i < (warp + 1) * WARP; i++)
        if (threads[i].state == AT_WARP_BARRIER) threads[i].state = READY;
}

uint64_t draw() {
    choice.random = choice.random * 6364136223846793005u + 1442695040888963407u;
    return choice.random >> 33;
}

void arrange(unsigned *order, unsigned count) {
    for (unsigned i = 0; i < count; i++) order[i] = choice.order == SHIM_REVERSED ? count - 1 - i : i;
    if (choice.order != SHIM_RANDOM) return;
    for (unsigned i = count; i > 1; i--) {
        const unsigned k = (unsigned)(draw() % i), other = order[k];
        order[k] = order[i - 1];
        order[i - 1] = other;
    }
}

// Lets each of these threads that can run do so once. False: none can.
bool run_ready(const unsigned *order, unsigned count, unsigned *done) {
    bool any = false;
    for (unsigned i = 0; i < count; i++) {
        thread *t = &threads[order[i]];
        if (t->state != READY) continue;
        any = true;
        current = t;
        threadIdx.x = order[i];
        shim_fiber_switch(&scheduler, &t->fiber);
        *done += t->state == DONE;
    }
    return any;
}

void run_block(const char *op) {
    unsigned order[MOST_THREADS], done = 0;
    for (int i = 0; i < shared_count; i++) memset(shared_arrays[i].memory, FILL, shared_arrays[i].bytes);
    at_block_barrier = 0;
    memset(at_warp_barrier, 0, sizeof at_warp_barrier);
    block_any = false;
    for (unsigned i = 0; i < blockDim.x; i++) {
        threads[i].state = READY;
        threads[i].block_parity = threads[i].warp_parity = false;
    }
    // Forward and reversed, a warp goes on alone until it waits for others or is done, as far ahead as a card might let
    // it; at random, all threads take turns.
    const unsigned together = choice.order == SHIM_RANDOM ? blockDim.x : WARP;
    arrange(order, blockDim.x);
    while (done < blockDim.x) {
        bool any = false;
        for (unsigned first = 0; first < blockDim.x; first += together)
            while (run_ready(order + first, together, &done)) any = true;
        if (!any) give_up("not all threads reach a barrier that some wait at", op);
        if (choice.order == SHIM_RANDOM) arrange(order, blockDim.x);
    }
    threads_run += blockDim.x;
    if (shim_forget_copies() && skipped < 0) shim_fault("a thread ends before it has waited for its copies");
    watch_end_of_block();
}

}  // namespace

void shim_block_barrier(const char *file, int line) {
    if (barrier_at(file, line) == skipped) return;
    wait_for_block(file, line);
    current->block_parity = !current->block_parity;
    watch_block_barrier();
}

bool shim_block_or(bool x, const char *file, int line) {
    const bool parity = current->block_parity;
    block_any = block_any || x;
    wait_for_block(file, line);
    current->block_parity = !parity;
    watch_block_barrier();
    return block_result[parity];
}

void shim_warp_barrier(const char *file, int line) {
    if (barrier_at(file, line) == skipped) return;
    wait_for_warp(file, line);
    watch_warp_barrier();
}

// Two buffers in turn: who writes to one again has met everybody at the shuffle between, so all have read it. A shuffle
// orders no accesses to memory, in CUDA neither.
void shim_shuffle(const void *mine, void *theirs, size_t bytes, unsigned from, unsigned mask, const char *file,
                  int line) {
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const bool parity = current->warp_parity;
    if (mask != 0xffffffffu) shim_fault("%s:%d names not all lanes: %#x", file, line, mask);
    memcpy(shuffled[warp][parity][lane], mine, bytes);
    wait_for_warp(file, line);
    memcpy(theirs, shuffled[warp][parity][from], bytes);
    current->warp_parity = !parity;
}

void shim_shared(void *memory, size_t bytes) {
    int i = 0;
    while (i < shared_count && shared_arrays[i].memory != memory) i++;
    if (i == 256) give_up("more than 256 shared arrays", "SHARED");
    if (i == shared_count) {
        shared_arrays[i] = {memory, bytes, 0};
        shared_count++;
        memset(memory, FILL, bytes);
    }
    if (shared_arrays[i].launch == launches) return;
    shared_arrays[i].launch = launches;
    shared_bytes += bytes;
    if (shared_bytes > MOST_SHARED) shim_fault("%zu bytes of shared memory, %zu at most", shared_bytes, MOST_SHARED);
}

void *shim_dynamic_shared(void) {
    return dynamic_shared;
}

bool shim_is_shared(const void *p, size_t bytes) {
    const uintptr_t at = (uintptr_t)p;
    const auto lies_in = [&](const void *memory, size_t size) {
        return at >= (uintptr_t)memory && at + bytes <= (uintptr_t)memory + size;
    };
    if (lies_in(dynamic_shared, dynamic_bytes)) return true;
    for (int i = 0; i < shared_count; i++)
        if (lies_in(shared_arrays[i].memory, shared_arrays[i].bytes)) return true;
    return false;
}

bool shim_is_own(const void *p) {
    return current && (uintptr_t)p - (uintptr_t)current->fiber.stack < current->fiber.bytes;
}

void shim_fault(const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (!faults.expected || !faults.count) vsnprintf(faults.text, sizeof faults.text, format, args);
    va_end(args);
    faults.count++;
    if (faults.expected) return;
    fprintf(stderr, "shim: %s: %s\n", faults.op ? faults.op : "", faults.text);
    abort();
}

void shim_expect_faults(bool expect) {
    faults.expected = expect;
    faults.count = 0;
    faults.text[0] = 0;
}

int shim_faults(void) {
    return faults.count;
}

const char *shim_first_fault(void) {
    return faults.text;
}

pb_status shim_run(const char *op, dim3 grid, unsigned count, size_t shared, void (*run)(void *), void *context) {
    if (!grid.x || !grid.y || !grid.z) return PB_OK;
    faults.op = op;
    if (!count || count % WARP || count > MOST_THREADS) give_up("an impossible number of threads", op);
    if (shared > MOST_SHARED || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535) {
        shim_fault("no card runs %u x %u x %u blocks with %zu bytes of shared memory", grid.x, grid.y, grid.z, shared);
        return PB_OK;
    }
    for (unsigned i = 0; i < count; i++)
        if (!threads[i].fiber.stack) shim_fiber_create(&threads[i].fiber, STACK, live);
    // To the byte, so that AddressSanitizer sees what is beyond.
    dynamic_shared = malloc(shared ? shared : 1);
    if (!dynamic_shared) give_up("no memory", op);
    dynamic_bytes = shared_bytes = shared;
    launches++;
    watch_launch(op);
    run_kernel = run;
    run_context = context;
    blockDim = dim3(count);
    gridDim = grid;
    const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    for (uint64_t i = 0; i < blocks; i++) {
        const uint64_t k = choice.order == SHIM_REVERSED ? blocks - 1 - i : i;
        blockIdx.x = (unsigned)(k % grid.x);
        blockIdx.y = (unsigned)(k / grid.x % grid.y);
        blockIdx.z = (unsigned)(k / grid.x / grid.y);
        memset(dynamic_shared, FILL, shared);
        watch_block();
        run_block(op);
    }
    free(dynamic_shared);
    dynamic_shared = NULL;
    dynamic_bytes = 0;
    return PB_OK;
}

shim_order shim_order_now(void) {
    return choice.order;
}

bool shim_is_left_out(const char *file, int line) {
    return barrier_at(file, line) == skipped;
}

void shim_set_order(shim_order order, uint64_t seed) {
    choice.order = order;
    choice.random = seed;
}

int shim_barriers(void) {
    return barrier_count;
}

const char *shim_barrier_place(int barrier) {
    return barriers[barrier].place;
}

bool shim_barrier_reached(int barrier) {
    return barriers[barrier].reached;
}

void shim_forget_barriers(void) {
    for (int i = 0; i < barrier_count; i++) barriers[i].reached = false;
}

void shim_skip_barrier(int barrier) {
    skipped = barrier;
}

uint64_t shim_threads_run(void) {
    return threads_run;
}
