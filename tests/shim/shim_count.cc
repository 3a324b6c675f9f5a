// What accesses cost, counted by warps as the hardware serves them: in passes over the banks of shared memory, or in
// sectors of 32 bytes of device memory. A warp's lanes are together at a place in the source when each is there for the
// same time, which holds for all that does not branch lane by lane.
#include <dlfcn.h>

#include "shim_runtime.h"

namespace {

constexpr unsigned MOST_THREADS = 1024, WARP = 32;

// "file.cu:line" of a return address, by addr2line, which looks through inlined functions for one of the kernels'
// files.
void place_of(const void *from, char *text, size_t bytes) {
    Dl_info info;
    char command[600], line[600];
    snprintf(text, bytes, "%p", from);
    if (!dladdr(from, &info) || !info.dli_fname) return;
    const uintptr_t offset = (uintptr_t)from - (uintptr_t)info.dli_fbase - 1;
    snprintf(command, sizeof command, "addr2line -i -e '%s' %#zx 2>/dev/null", info.dli_fname, (size_t)offset);
    FILE *pipe = popen(command, "r");
    if (!pipe) return;
    bool found = false;
    while (fgets(line, sizeof line, pipe)) {
        const char *name = strrchr(line, '/');
        if (found || !name || strstr(line, "elements.cuh") || strstr(line, "shim.h")) continue;  // who calls those
        snprintf(text, bytes, "%.*s", (int)strcspn(name + 1, " \n"), name + 1);
        found = true;
    }
    pclose(pipe);
}

// Accesses, as they come; brought into order by place, warp and turn at the end of a block.
struct record {
    const void *from;
    uintptr_t at;
    uint32_t turn;  // how often the thread was there before
    uint16_t thread;
    uint8_t bytes;
    bool shared;
};
record *records;
size_t record_count, record_room;
bool is_counting;
constexpr int MOST_PLACES = 1024;
struct {
    const void *from;
    uint32_t turns[MOST_THREADS];
} turns[MOST_PLACES];
int turn_count;
shim_accesses counted[MOST_PLACES];
const void *counted_from[MOST_PLACES];
int counted_count;

uint32_t turn_at(const void *from) {
    int i = 0;
    while (i < turn_count && turns[i].from != from) i++;
    if (i == MOST_PLACES) abort();
    if (i == turn_count) {
        turns[turn_count++].from = from;
        memset(turns[i].turns, 0, sizeof turns[i].turns);
    }
    return turns[i].turns[threadIdx.x]++;
}

int compare_records(const void *a, const void *b) {
    const record &x = *static_cast<const record *>(a), &y = *static_cast<const record *>(b);
    if (x.from != y.from) return x.from < y.from ? -1 : 1;
    if (x.thread / WARP != y.thread / WARP) return x.thread / WARP < y.thread / WARP ? -1 : 1;
    if (x.turn != y.turn) return x.turn < y.turn ? -1 : 1;
    return (x.thread > y.thread) - (x.thread < y.thread);
}

int compare_words(const void *a, const void *b) {
    const uintptr_t x = *static_cast<const uintptr_t *>(a), y = *static_cast<const uintptr_t *>(b);
    return (x > y) - (x < y);
}

// The different words, or sectors, of `size` bytes that some lanes touch.
unsigned words_of(const record *r, unsigned lanes, unsigned size, uintptr_t (&words)[256]) {
    unsigned count = 0, different = 0;
    for (unsigned i = 0; i < lanes; i++)
        for (uintptr_t at = r[i].at / size; at <= (r[i].at + r[i].bytes - 1) / size; at++) words[count++] = at;
    qsort(words, count, sizeof *words, compare_words);
    for (unsigned i = 0; i < count; i++)
        if (!i || words[i] != words[i - 1]) words[different++] = words[i];
    return different;
}

// One access of a warp. Shared memory serves 32 banks of 4 bytes at a time: 16 bytes for 8 lanes, 8 bytes for 16.
void add_access(shim_accesses *sum, const record *r, unsigned lanes) {
    uintptr_t words[256];
    sum->accesses++;
    if (!r->shared) {
        sum->pieces += words_of(r, lanes, 32, words);
        sum->least += (words_of(r, lanes, 2, words) * 2 + 31) / 32;
        return;
    }
    const unsigned together = r->bytes == 16 ? 8 : r->bytes == 8 ? 16 : WARP;
    for (unsigned first = 0; first < lanes;) {
        unsigned end = first, in_bank[32] = {}, most = 0;
        while (end < lanes && r[end].thread % WARP / together == r[first].thread % WARP / together) end++;
        const unsigned count = words_of(r + first, end - first, 4, words);
        for (unsigned i = 0; i < count; i++) {
            const unsigned now = ++in_bank[words[i] % 32];
            most = now > most ? now : most;
        }
        sum->pieces += most;
        sum->least++;
        first = end;
    }
}

shim_accesses *counted_at(const record &r) {
    for (int i = 0; i < counted_count; i++)
        if (counted_from[i] == r.from && counted[i].bytes == r.bytes) return &counted[i];
    if (counted_count == MOST_PLACES) abort();
    shim_accesses *sum = &counted[counted_count];
    counted_from[counted_count++] = r.from;
    *sum = {strdup(watch_place(r.from)), r.shared, r.bytes, 0, 0, 0};
    return sum;
}

}  // namespace

const char *watch_place(const void *from) {
    static char text[256];
    place_of(from, text, sizeof text);
    return text;
}

void count_access(uintptr_t at, unsigned bytes, bool shared, const void *from) {
    if (!is_counting) return;
    if (record_count == record_room) {
        record_room = record_room ? 2 * record_room : 1 << 16;
        records = static_cast<record *>(realloc(records, record_room * sizeof *records));
        if (!records) abort();
    }
    records[record_count++] = {from, at, turn_at(from), (uint16_t)threadIdx.x, (uint8_t)bytes, shared};
}

void count_end_of_block(void) {
    turn_count = 0;
    qsort(records, record_count, sizeof *records, compare_records);
    for (size_t i = 0, end; i < record_count; i = end) {
        const record &r = records[i];
        for (end = i + 1; end < record_count && records[end].from == r.from && records[end].turn == r.turn &&
                          records[end].thread / WARP == r.thread / WARP;)
            end++;
        add_access(counted_at(r), &r, (unsigned)(end - i));
    }
    record_count = 0;
}

void shim_count_accesses(bool count) {
    is_counting = count;
    for (int i = 0; i < counted_count; i++) free(const_cast<char *>(counted[i].place));
    counted_count = 0;
}

int shim_counted(const shim_accesses **list) {
    *list = counted;
    return counted_count;
}
