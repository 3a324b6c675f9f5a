// test: links=exec,cpu,ref,plan,graph,offload,base with=plan/support_graphs.c
// Paged runs allocate nothing: this program's own malloc and mmap count while steps run, with both I/O engines.
#include <stdlib.h>  // and with it __GLIBC__

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define SANITIZED
#endif

#ifdef SANITIZED
#include <stdio.h>

int main(void) {
    puts("skipped: malloc is the sanitizer's");
    return 77;
}
#else
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "exec/support_paging.h"
#include "offload/store.h"
#include "plan/support_graphs.h"
#include "scratch.h"

static atomic_bool counting;
static atomic_int allocations;

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *pointer, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static void note(void) {
    if (atomic_load(&counting)) atomic_fetch_add(&allocations, 1);
}

void *malloc(size_t bytes) {
    note();
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t size) {
    note();
    return __libc_calloc(count, size);
}

void *realloc(void *pointer, size_t bytes) {
    note();
    return __libc_realloc(pointer, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    note();
    return __libc_memalign(alignment, bytes);
}

void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    note();
    return (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
}

static void write_inputs(pb_executor *e, const pb_graph *g, uint64_t seed) {
    static unsigned char data[1 << 16];
    for (pb_vid v = 0; v < g->value_count; v++) {
        const pb_value *value = &g->values[v];
        if (value->producer != PB_NONE || value->class_ != PB_CLASS_INPUT) continue;
        CHECK(pb_value_bytes(value) <= sizeof data);
        support_fill(g, v, seed, data);
        CHECK_OK(pb_executor_write(e, v, 0, data, pb_value_bytes(value)));
    }
}

static void run(const pb_graph *g, const pb_program *p, int engine) {
    const pb_memory_options options = {.nvme = scratch_path("store"), .engine = engine};
    pb_memory *memory = NULL;
    pb_executor *executor = NULL;
    CHECK_OK(pb_memory_create_for(pb_backend_cpu(), &p, 1, &options, &memory));
    CHECK_OK(pb_executor_create(pb_backend_cpu(), g, p, memory, &executor));
    pb_vid persistent = 0;
    while (!g->values[persistent].persistent) persistent++;
    for (uint64_t step = 0; step < 4; step++) {
        atomic_store(&counting, step > 0);  // the pool's threads start with the first
        write_inputs(executor, g, step);
        CHECK_OK(pb_executor_run(executor));
        float value;
        CHECK_OK(pb_executor_read(executor, persistent, 0, &value, sizeof value));
    }
    atomic_store(&counting, false);
    CHECK_THAT(atomic_load(&allocations) == 0, "engine %d: %d allocations", engine, atomic_load(&allocations));
    pb_executor_destroy(executor);
    pb_memory_destroy(memory);
}

int main(void) {
    // That they are counted at all.
    atomic_store(&counting, true);
    void *volatile pointer = malloc(1);
    atomic_store(&counting, false);
    free(pointer);
    CHECK(atomic_exchange(&allocations, 0) == 1);
    pb_graph *g = support_random_graph(1, 4);
    CHECK(g && g->status == PB_OK);
    pb_program *p = support_paging_program(g, pb_backend_cpu(), 1);
    CHECK(p);
    run(g, p, PB_STORE_AUTO);
    run(g, p, PB_STORE_THREADS);
    pb_program_destroy(p);
    pb_graph_destroy(g);
    scratch_remove();
    return CHECK_DONE();
}
#endif
