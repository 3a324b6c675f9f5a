// LD_PRELOAD library that counts how often a process asks for memory in each step of a training run, its libraries
// included: malloc, calloc, realloc, the aligned ones, C++'s operator new (which calls malloc), mmap, munmap, mremap,
// brk, sbrk, pthread_create. The program knows nothing of it: a step ends when a line is written to a file that is
// called metrics.jsonl. At exit one line per step goes to the file that PB_ALLOC_REPORT names:
//
//     step 1: 5034 allocations, 12 mappings
//     step 2: 0 allocations, 0 mappings
//     first after step 1: malloc from /lib/x86_64-linux-gnu/libfoo.so+0x1234 in step 3   (where there is one)
//
// "step 1" is all up to the first line, start-up included; "end" is what follows the last.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { STEPS_MAX = 4096, EARLY_BYTES = 1 << 16 };

static atomic_uint allocations[STEPS_MAX], mappings[STEPS_MAX];
static atomic_int step_index;  // steps that have ended
static struct {
    const char *call;
    void *caller;
    int step;
} first;
static atomic_bool first_taken;

static void note(atomic_uint *counters, const char *call, void *caller) {
    int step = atomic_load(&step_index);
    atomic_fetch_add(&counters[step], 1);
    if (step > 0 && !atomic_exchange(&first_taken, true)) {
        first.call = call;
        first.caller = caller;
        first.step = step + 1;
    }
}

// dlsym itself may call calloc before the real one is known: it gets bytes from here, which are never freed.
static _Alignas(16) char early[EARLY_BYTES];
static atomic_size_t early_used;

static void *early_alloc(size_t bytes) {
    size_t at = atomic_fetch_add(&early_used, (bytes + 15) & ~(size_t)15);
    return at + bytes <= sizeof early ? early + at : NULL;
}

static bool is_early(const void *pointer) {
    return (const char *)pointer >= early && (const char *)pointer < early + sizeof early;
}

// The function that this one stands before.
#define REAL(name)                        \
    static __typeof__(name) *real_##name; \
    if (!real_##name) *(void **)&real_##name = dlsym(RTLD_NEXT, #name)
#define CALLER __builtin_return_address(0)
#define EXPORT __attribute__((visibility("default")))

static _Thread_local bool resolving;

EXPORT void *malloc(size_t bytes) {
    if (resolving) return early_alloc(bytes);
    resolving = true;
    REAL(malloc);
    resolving = false;
    note(allocations, "malloc", CALLER);
    return real_malloc(bytes);
}

EXPORT void *calloc(size_t count, size_t size) {
    if (resolving) return early_alloc(count * size);  // zero, as it is static
    resolving = true;
    REAL(calloc);
    resolving = false;
    note(allocations, "calloc", CALLER);
    return real_calloc(count, size);
}

EXPORT void *realloc(void *pointer, size_t bytes) {
    REAL(realloc);
    note(allocations, "realloc", CALLER);
    if (!is_early(pointer)) return real_realloc(pointer, bytes);
    void *moved = malloc(bytes);
    size_t there = (size_t)(early + sizeof early - (char *)pointer);
    if (moved) memcpy(moved, pointer, bytes < there ? bytes : there);
    return moved;
}

EXPORT void free(void *pointer) {
    REAL(free);
    if (!is_early(pointer)) real_free(pointer);
}

EXPORT int posix_memalign(void **pointer, size_t alignment, size_t bytes) {
    REAL(posix_memalign);
    note(allocations, "posix_memalign", CALLER);
    return real_posix_memalign(pointer, alignment, bytes);
}

EXPORT void *aligned_alloc(size_t alignment, size_t bytes) {
    REAL(aligned_alloc);
    note(allocations, "aligned_alloc", CALLER);
    return real_aligned_alloc(alignment, bytes);
}

EXPORT void *memalign(size_t alignment, size_t bytes) {
    REAL(memalign);
    note(allocations, "memalign", CALLER);
    return real_memalign(alignment, bytes);
}

EXPORT void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    REAL(mmap);
    note(mappings, "mmap", CALLER);
    return real_mmap(address, bytes, protection, flags, fd, offset);
}

EXPORT void *mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    REAL(mmap64);
    note(mappings, "mmap64", CALLER);
    return real_mmap64(address, bytes, protection, flags, fd, offset);
}

EXPORT int munmap(void *address, size_t bytes) {
    REAL(munmap);
    note(mappings, "munmap", CALLER);
    return real_munmap(address, bytes);
}

EXPORT void *mremap(void *address, size_t before, size_t after, int flags, ...) {
    REAL(mremap);
    va_list arguments;
    va_start(arguments, flags);
    void *to = flags & MREMAP_FIXED ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    note(mappings, "mremap", CALLER);
    return real_mremap(address, before, after, flags, to);
}

EXPORT int brk(void *end) {
    REAL(brk);
    note(mappings, "brk", CALLER);
    return real_brk(end);
}

EXPORT void *sbrk(intptr_t bytes) {
    REAL(sbrk);
    if (bytes) note(mappings, "sbrk", CALLER);
    return real_sbrk(bytes);
}

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *context) {
    REAL(pthread_create);
    note(mappings, "pthread_create", CALLER);
    return real_pthread_create(thread, attributes, run, context);
}

// --- Steps ---

static bool is_metrics(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, sizeof path);
    static const char name[] = "/metrics.jsonl";
    ssize_t tail = sizeof name - 1;
    return bytes > tail && !memcmp(path + bytes - tail, name, (size_t)tail);
}

EXPORT ssize_t write(int fd, const void *data, size_t bytes) {
    REAL(write);
    ssize_t written = real_write(fd, data, bytes);
    if (written > 0 && ((const char *)data)[written - 1] == '\n' && is_metrics(fd) &&
        atomic_load(&step_index) < STEPS_MAX - 1)
        atomic_fetch_add(&step_index, 1);
    return written;
}

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("PB_ALLOC_REPORT");
    int steps = atomic_load(&step_index);
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    for (int i = 0; i <= steps; i++) {
        if (i < steps)
            fprintf(file, "step %d", i + 1);
        else
            fprintf(file, "end");
        // The report's own are in the last line.
        fprintf(file, ": %u allocations, %u mappings\n", atomic_load(&allocations[i]), atomic_load(&mappings[i]));
    }
    Dl_info where;
    if (first.call && first.step <= steps && dladdr(first.caller, &where))
        fprintf(file, "first after step 1: %s from %s+0x%zx in step %d\n", first.call, where.dli_fname,
                (size_t)((char *)first.caller - (char *)where.dli_fbase), first.step);
    fclose(file);
}
