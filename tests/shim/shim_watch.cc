// A shim that sees every load and store: the kernels are compiled with -fsanitize=thread, whose calls come here instead
// of to that sanitizer. So a race shows whatever order the threads ran in: two accesses to one byte, one of them a
// store, by threads that no barrier keeps apart (of one warp, __syncwarp; shuffles order nothing). In global memory,
// blocks of one launch are never kept apart. Also found: what is read of shared memory that nobody has written in this
// block, or that an asynchronous copy was to bring which its thread has not waited for; and accesses that are not
// aligned to their size, whatever the processor here thinks of it.
//
// On request, accesses are counted (shim_count.cc).
#include "shim_runtime.h"

namespace {

constexpr unsigned MOST_THREADS = 1024, WARP = 32, MOST_COPIES = 256;
constexpr uintptr_t PAGE = 4096;

// A scope is what barriers work in: a block of a launch, by its number.
struct access {
    uint64_t scope;
    uint32_t barriers, warp_barriers;  // that the thread had passed
    uint16_t thread;
};
enum readers : uint8_t { ONE, OF_WARP, SEVERAL };  // of the last scope and barrier that anybody read in

struct byte_state {
    access write, read;
    uint64_t launch_of_write, launch_of_read;
    readers read_by;
    bool is_coming;  // by an asynchronous copy
};

struct page {
    uintptr_t number;
    byte_state *bytes;
};
page *pages;
size_t page_room, page_count;
page last_page;

uint64_t scope, launch_serial;
const char *op;
struct {
    uint32_t barriers, warp_barriers;
    int copies;
    struct {
        void *to;
        int bytes, group;
    } copy[MOST_COPIES];
} of_thread[MOST_THREADS];
bool is_running;

page *slot_of(page *table, size_t room, uintptr_t number) {
    size_t i = (size_t)(number * 0x9e3779b97f4a7c15u >> 20) % room;
    while (table[i].bytes && table[i].number != number) i = (i + 1) % room;
    return &table[i];
}

byte_state *state_of(uintptr_t at) {
    const uintptr_t number = at / PAGE;
    if (last_page.bytes && last_page.number == number) return &last_page.bytes[at % PAGE];
    if (2 * page_count >= page_room) {
        const size_t room = page_room ? 2 * page_room : 1024;
        page *table = static_cast<page *>(calloc(room, sizeof *table));
        if (!table) abort();
        for (size_t i = 0; i < page_room; i++)
            if (pages[i].bytes) *slot_of(table, room, pages[i].number) = pages[i];
        free(pages);
        pages = table;
        page_room = room;
    }
    page *p = slot_of(pages, page_room, number);
    if (!p->bytes) {
        p->number = number;
        p->bytes = static_cast<byte_state *>(calloc(PAGE, sizeof *p->bytes));
        if (!p->bytes) abort();
        page_count++;
    }
    last_page = *p;
    return &p->bytes[at % PAGE];
}

// Looked up for one fault only, which takes long.
const char *place_of(const void *from) {
    return shim_faults() ? "" : watch_place(from);
}

// Whether barriers put `before` ahead of what this thread does now.
bool comes_before(const access &before) {
    const unsigned me = threadIdx.x;
    const auto &mine = of_thread[me];
    if (before.scope != scope) return false;  // another block
    if (before.thread == me || before.barriers < mine.barriers) return true;
    return before.thread / WARP == me / WARP && before.warp_barriers < mine.warp_barriers;
}

bool readers_come_before(const byte_state &b) {
    if (b.read.scope != scope) return false;
    const auto &mine = of_thread[threadIdx.x];
    if (b.read.barriers < mine.barriers) return true;
    if (b.read_by == ONE) return comes_before(b.read);
    return b.read_by == OF_WARP && b.read.thread / WARP == threadIdx.x / WARP &&
           b.read.warp_barriers < mine.warp_barriers;
}

access now() {
    const auto &mine = of_thread[threadIdx.x];
    return {scope, mine.barriers, mine.warp_barriers, (uint16_t)threadIdx.x};
}

void add_reader(byte_state *b) {
    const access me = now();
    const bool anew = b->launch_of_read != launch_serial || (b->read.scope == scope && b->read.barriers < me.barriers);
    if (anew || (b->read_by == ONE && b->read.scope == scope && b->read.thread == me.thread)) {
        b->read = me;
        b->read_by = ONE;
        b->launch_of_read = launch_serial;
        return;
    }
    if (b->read.scope != scope) {  // of several blocks: before nobody
        b->read.scope = 0;
        b->read_by = SEVERAL;
    } else if (b->read_by != SEVERAL && b->read.thread / WARP == me.thread / WARP) {
        b->read_by = OF_WARP;
        b->read.warp_barriers = max(b->read.warp_barriers, me.warp_barriers);
    } else {
        b->read_by = SEVERAL;
    }
}

enum kind { LOAD, STORE, COPY };
const char *const names[] = {"a load", "a store", "an asynchronous copy"};

void check(uintptr_t at, unsigned bytes, kind what, const void *from) {
    const bool shared = shim_is_shared(reinterpret_cast<const void *>(at), bytes);
    const char *trouble = NULL;
    for (unsigned i = 0; i < bytes && !trouble; i++) {
        byte_state *b = state_of(at + i);
        const bool written = b->launch_of_write == launch_serial, read = b->launch_of_read == launch_serial;
        // Shared memory of an earlier block is no memory of this one's.
        const bool was_written = shared ? written && b->write.scope == scope : written;
        const bool was_read = shared ? read && b->read.scope == scope : read;
        if (shared && !was_written && what == LOAD) trouble = "of shared memory that nobody has written";
        if (was_written && b->is_coming) trouble = "where an asynchronous copy is under way";
        if (was_written && !trouble && !comes_before(b->write)) trouble = "races with a store";
        if (what != LOAD && was_read && !trouble && !readers_come_before(*b)) trouble = "races with a load";
        if (what == LOAD) {
            if (shared && !was_read) b->launch_of_read = 0;
            add_reader(b);
        } else {
            b->write = now();
            b->launch_of_write = launch_serial;
            b->is_coming = what == COPY;
        }
    }
    if (trouble)
        shim_fault("%s: %s of %u bytes %s, at %s, thread %u of block %u, %u, %u", op, names[what], bytes, trouble,
                   place_of(from), threadIdx.x, blockIdx.x, blockIdx.y, blockIdx.z);
    count_access(at, bytes, shared, from);
}

// What the shim itself keeps is no memory of the card's, nor are a fiber's own variables.
bool is_private(const void *p) {
    const auto lies_in = [&](const dim3 &x) { return (uintptr_t)p - (uintptr_t)&x < sizeof x; };
    return shim_is_own(p) || lies_in(threadIdx) || lies_in(blockIdx) || lies_in(blockDim) || lies_in(gridDim);
}

void see(void *p, unsigned bytes, kind what, const void *from) {
    const uintptr_t at = (uintptr_t)p;
    if (!is_running || is_private(p)) return;
    if (at % bytes)
        shim_fault("%s: %s of %u bytes at %p is not aligned, at %s", op, names[what], bytes, p, place_of(from));
    check(at, bytes, what, from);
}

void see_range(void *p, size_t bytes, kind what, const void *from) {
    for (size_t i = 0; i < bytes; i++) see(static_cast<char *>(p) + i, 1, what, from);
}

}  // namespace

void watch_launch(const char *name) {
    op = name;
    launch_serial++;
}

void watch_block(void) {
    scope++;
    memset(of_thread, 0, sizeof of_thread);
    is_running = true;
}

void watch_end_of_block(void) {
    is_running = false;
    for (const auto &t : of_thread)
        if (t.copies) shim_fault("%s: a thread ends before it has waited for its copies", op);
    count_end_of_block();
}

void watch_block_barrier(void) {
    of_thread[threadIdx.x].barriers++;
}

void watch_warp_barrier(void) {
    of_thread[threadIdx.x].warp_barriers++;
}

void watch_copy(void *to, const void *source, int bytes, int group, const void *from) {
    auto &mine = of_thread[threadIdx.x];
    if (mine.copies == (int)MOST_COPIES) abort();
    mine.copy[mine.copies++] = {to, bytes, group};
    if (source) check((uintptr_t)source, (unsigned)bytes, LOAD, from);
    check((uintptr_t)to, (unsigned)bytes, COPY, from);
}

// What came is as if the thread had written it now.
void watch_wait(int groups) {
    auto &mine = of_thread[threadIdx.x];
    int left = 0;
    for (int i = 0; i < mine.copies; i++) {
        if (mine.copy[i].group >= groups) {
            mine.copy[left++] = mine.copy[i];
            continue;
        }
        for (int k = 0; k < mine.copy[i].bytes; k++) {
            byte_state *b = state_of((uintptr_t)mine.copy[i].to + (uintptr_t)k);
            b->write = now();
            b->is_coming = false;
        }
    }
    mine.copies = left;
}

void watch_rows(const uint16_t *row, const void *from) {
    check((uintptr_t)row, 16, LOAD, from);
}

// What -fsanitize=thread calls.
#define SEE(bytes)                                               \
    extern "C" void __tsan_read##bytes(void *p) {                \
        see(p, bytes, LOAD, __builtin_return_address(0));        \
    }                                                            \
    extern "C" void __tsan_write##bytes(void *p) {               \
        see(p, bytes, STORE, __builtin_return_address(0));       \
    }                                                            \
    extern "C" void __tsan_unaligned_read##bytes(void *p) {      \
        see_range(p, bytes, LOAD, __builtin_return_address(0));  \
    }                                                            \
    extern "C" void __tsan_unaligned_write##bytes(void *p) {     \
        see_range(p, bytes, STORE, __builtin_return_address(0)); \
    }
SEE(1)
SEE(2)
SEE(4)
SEE(8)
SEE(16)
extern "C" void __tsan_read_range(void *p, size_t bytes) {
    see_range(p, bytes, LOAD, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void *p, size_t bytes) {
    see_range(p, bytes, STORE, __builtin_return_address(0));
}
extern "C" void __tsan_init() {
}
extern "C" void __tsan_func_entry(void *) {
}
extern "C" void __tsan_func_exit() {
}
// clang's.
extern "C" void *__tsan_memcpy(void *to, const void *from, size_t bytes) {
    see_range(const_cast<void *>(from), bytes, LOAD, __builtin_return_address(0));
    see_range(to, bytes, STORE, __builtin_return_address(0));
    return memcpy(to, from, bytes);
}
extern "C" void *__tsan_memmove(void *to, const void *from, size_t bytes) {
    see_range(const_cast<void *>(from), bytes, LOAD, __builtin_return_address(0));
    see_range(to, bytes, STORE, __builtin_return_address(0));
    return memmove(to, from, bytes);
}
extern "C" void *__tsan_memset(void *to, int value, size_t bytes) {
    see_range(to, bytes, STORE, __builtin_return_address(0));
    return memset(to, value, bytes);
}
