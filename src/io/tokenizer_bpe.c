// Byte-pair merging with a heap: a word of n letters takes n log n steps, however it is made.
#include <assert.h>

#include "io/tokenizer_internal.h"

typedef struct symbol {
    int32_t id;
    int32_t previous, next;  // indices, -1 at the ends
    bool dead;               // merged into the one before it
} symbol;

typedef struct candidate {
    int32_t rank, position, result;
} candidate;

typedef struct heap {
    candidate *entries;
    size_t count;
} heap;

static bool is_before(candidate a, candidate b) {
    return a.rank < b.rank || (a.rank == b.rank && a.position < b.position);
}

static void push(heap *h, candidate entry) {
    size_t at = h->count++;
    for (size_t parent; at > 0 && is_before(entry, h->entries[parent = (at - 1) / 2]); at = parent)
        h->entries[at] = h->entries[parent];
    h->entries[at] = entry;
}

static candidate pop(heap *h) {
    const candidate top = h->entries[0], last = h->entries[--h->count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= h->count) break;
        if (child + 1 < h->count && is_before(h->entries[child + 1], h->entries[child])) child++;
        if (!is_before(h->entries[child], last)) break;
        h->entries[at] = h->entries[child];
        at = child;
    }
    h->entries[at] = last;
    return top;
}

static const pb_merge *find_merge(const pb_tokenizer *t, int32_t first, int32_t second) {
    size_t low = 0, high = t->merge_count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const pb_merge *const merge = &t->merges[middle];
        if (merge->first == first && merge->second == second) return merge;
        if (merge->first < first || (merge->first == first && merge->second < second))
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static void push_pair(const pb_tokenizer *t, heap *h, const symbol *symbols, int32_t left) {
    if (left < 0 || symbols[left].next < 0) return;
    const pb_merge *const merge = find_merge(t, symbols[left].id, symbols[symbols[left].next].id);
    if (merge) push(h, (candidate){.rank = merge->rank, .position = left, .result = merge->result});
}

// Each merge takes one symbol away and adds two candidates at most, so there are never more than 3 count of them.
size_t pb_bpe_scratch_bytes(size_t count) {
    return count * (sizeof(symbol) + 3 * sizeof(candidate));
}

size_t pb_bpe_merge(const pb_tokenizer *t, int32_t *ids, size_t count, void *scratch) {
    assert(count > 0 && count <= INT32_MAX);
    symbol *const symbols = scratch;
    heap h = {.entries = (candidate *)(symbols + count)};
    for (size_t i = 0; i < count; i++)
        symbols[i] = (symbol){.id = ids[i], .previous = (int32_t)i - 1, .next = i + 1 < count ? (int32_t)i + 1 : -1};
    for (size_t i = 0; i + 1 < count; i++) push_pair(t, &h, symbols, (int32_t)i);
    while (h.count > 0) {
        const candidate top = pop(&h);
        symbol *const left = &symbols[top.position];
        if (left->dead || left->next < 0) continue;
        symbol *const right = &symbols[left->next];
        // The neighbours may have changed. What counts, as in the original, is whether they still make the result.
        const pb_merge *const merge = find_merge(t, left->id, right->id);
        if (!merge || merge->result != top.result) continue;
        left->id = top.result;
        left->next = right->next;
        right->dead = true;
        if (left->next >= 0) symbols[left->next].previous = top.position;
        push_pair(t, &h, symbols, left->previous);
        push_pair(t, &h, symbols, top.position);
    }
    size_t left_over = 0;
    for (int32_t i = 0; i >= 0; i = symbols[i].next) ids[left_over++] = symbols[i].id;
    return left_over;
}
