// The slab is cut into spans with one history each, ascending and apart. They lie in rows of a few dozen, so that one
// more or one less moves no more than a row.
#include "plan/byte_history.h"

#include <stdlib.h>
#include <string.h>

enum { ROW = 48 };

typedef struct span {
    uint64_t begin, end;
    pb_stamp written, read;
} span;

typedef struct row {
    uint32_t count;  // never 0 in a list
    span spans[ROW];
} row;

struct pb_byte_history {
    row **rows;  // ascending
    uint32_t count, capacity;
};

// Of a span; at the end of the list `row` is its count of rows.
typedef struct place {
    uint32_t row, slot;
} place;

void pb_stamp_join(pb_stamp *to, const pb_stamp *from) {
    for (int l = 0; l < PB_LANE_COUNT; l++)
        if (from->at[l] > to->at[l]) to->at[l] = from->at[l];
}

pb_byte_history *pb_byte_history_create(void) {
    return calloc(1, sizeof(pb_byte_history));
}

void pb_byte_history_destroy(pb_byte_history *h) {
    if (!h) return;
    for (uint32_t r = 0; r < h->count; r++) free(h->rows[r]);
    free(h->rows);
    free(h);
}

static span *at(const pb_byte_history *h, place p) {
    return &h->rows[p.row]->spans[p.slot];
}

static place next(const pb_byte_history *h, place p) {
    if (p.slot + 1 < h->rows[p.row]->count) return (place){p.row, p.slot + 1};
    return (place){p.row + 1, 0};
}

static bool is_before(const pb_byte_history *h, place p, uint64_t offset) {
    return p.row < h->count && at(h, p)->begin < offset;
}

static place first_ending_after(const pb_byte_history *h, uint64_t offset) {
    uint32_t low = 0, high = h->count;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        const row *r = h->rows[middle];
        if (r->spans[r->count - 1].end <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    place p = {low, 0};
    if (low == h->count) return p;
    high = h->rows[low]->count;
    while (p.slot < high) {
        const uint32_t middle = (p.slot + high) / 2;
        if (h->rows[low]->spans[middle].end <= offset)
            p.slot = middle + 1;
        else
            high = middle;
    }
    return p;
}

// An empty row before row `index`.
static bool add_row(pb_byte_history *h, uint32_t index) {
    if (h->count == h->capacity) {
        const uint32_t capacity = h->capacity ? 2 * h->capacity : 16;
        row **grown = realloc(h->rows, capacity * sizeof *grown);
        if (!grown) return false;
        h->rows = grown;
        h->capacity = capacity;
    }
    row *made = malloc(sizeof *made);
    if (!made) return false;
    made->count = 0;
    memmove(h->rows + index + 1, h->rows + index, (h->count - index) * sizeof *h->rows);
    h->rows[index] = made;
    h->count++;
    return true;
}

// Puts `added` before the span at *p and makes *p its place.
static bool insert(pb_byte_history *h, place *p, const span *added) {
    if (p->row == h->count && p->row > 0) *p = (place){p->row - 1, h->rows[p->row - 1]->count};
    if (!h->count && !add_row(h, 0)) return false;
    row *r = h->rows[p->row];
    if (r->count == ROW) {
        if (!add_row(h, p->row + 1)) return false;
        row *right = h->rows[p->row + 1];
        right->count = ROW / 2;
        r->count = ROW - ROW / 2;
        memcpy(right->spans, r->spans + r->count, right->count * sizeof *right->spans);
        if (p->slot > r->count) {
            *p = (place){p->row + 1, p->slot - r->count};
            r = right;
        }
    }
    memmove(r->spans + p->slot + 1, r->spans + p->slot, (r->count - p->slot) * sizeof *r->spans);
    r->spans[p->slot] = *added;
    r->count++;
    return true;
}

// Takes out what begins before `end`, from `p` on.
static void erase_before(pb_byte_history *h, place p, uint64_t end) {
    while (is_before(h, p, end)) {
        row *r = h->rows[p.row];
        uint32_t to = p.slot;
        while (to < r->count && r->spans[to].begin < end) to++;
        memmove(r->spans + p.slot, r->spans + to, (r->count - to) * sizeof *r->spans);
        r->count -= to - p.slot;
        if (p.slot < r->count) return;
        if (r->count) {
            p = (place){p.row + 1, 0};
            continue;
        }
        free(r);
        h->count--;
        memmove(h->rows + p.row, h->rows + p.row + 1, (h->count - p.row) * sizeof *h->rows);
    }
}

// Cuts the span that has `offset` inside, so that one begins there.
static bool cut(pb_byte_history *h, uint64_t offset) {
    place p = first_ending_after(h, offset);
    if (!is_before(h, p, offset)) return true;
    span left = *at(h, p);
    left.end = at(h, p)->begin = offset;
    return insert(h, &p, &left);
}

void pb_byte_history_gather(const pb_byte_history *h, uint64_t begin, uint64_t end, bool write, pb_stamp *wanted) {
    for (place p = first_ending_after(h, begin); is_before(h, p, end); p = next(h, p)) {
        pb_stamp_join(wanted, &at(h, p)->written);
        if (write) pb_stamp_join(wanted, &at(h, p)->read);
    }
}

bool pb_byte_history_read(pb_byte_history *h, uint64_t begin, uint64_t end, pb_lane lane, uint32_t position) {
    if (!cut(h, begin) || !cut(h, end)) return false;
    // Bytes that nobody wrote in this step are read too: they must not be overwritten before.
    uint64_t reached = begin;
    for (place p = first_ending_after(h, begin); reached < end; p = next(h, p)) {
        const uint64_t stop = is_before(h, p, end) ? at(h, p)->begin : end;
        const span untouched = {.begin = reached, .end = stop};
        if (stop > reached && !insert(h, &p, &untouched)) return false;
        at(h, p)->read.at[lane] = position;
        reached = at(h, p)->end;
    }
    return true;
}

bool pb_byte_history_write(pb_byte_history *h, uint64_t begin, uint64_t end, pb_lane lane, uint32_t position) {
    span made = {.begin = begin, .end = end};
    made.written.at[lane] = position;
    if (!cut(h, begin) || !cut(h, end)) return false;
    place p = first_ending_after(h, begin);
    if (!is_before(h, p, end)) return insert(h, &p, &made);
    *at(h, p) = made;
    erase_before(h, next(h, p), end);
    return true;
}
