// In which order things leave a tier so that, however many have to, what they move lies evenly over the time of the
// ops beside it. Parameters do not: where the picture is large there are few and the ops take long, and where it is
// small it is the other way round. Evenly over the parameters, a drive would stand still beside the former and hold the
// latter up.
#include <stdlib.h>

#include "plan/pager.h"

enum { PARTS = 48 };  // of the time: a part should take about as long as what is on its way at once

static int by_wish(const void *left, const void *right) {
    const pb_spread_item *a = left, *b = right;
    if (a->wish != b->wish) return a->wish < b->wish ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

bool pb_pager_spread(pb_spread_item *items, uint32_t count) {
    pb_spread_item *sorted = malloc((count + 1) * sizeof *sorted);
    uint32_t *next = malloc((count + 1) * sizeof *next), first[PARTS];
    uint64_t left[PARTS] = {0};  // bytes that have left
    double end = 0;
    const bool good = sorted && next;
    for (int part = 0; part < PARTS; part++) first[part] = UINT32_MAX;
    for (uint32_t i = 0; i < count && good; i++) {
        sorted[i] = items[i];
        if (items[i].seconds > end) end = items[i].seconds;
    }
    if (good) qsort(sorted, count, sizeof *sorted, by_wish);
    for (uint32_t i = count; i-- > 0 && good;) {
        const int part = end > 0 ? (int)(sorted[i].seconds / end * PARTS) : 0, at = part < PARTS ? part : PARTS - 1;
        next[i] = first[at];
        first[at] = i;
    }
    // The next one is of a part of which the least has left, as long as there are any.
    for (uint32_t k = 0; k < count && good; k++) {
        int best = -1;
        for (int part = 0; part < PARTS; part++)
            if (first[part] != UINT32_MAX && (best < 0 || left[part] < left[best])) best = part;
        items[k] = sorted[first[best]];
        left[best] += items[k].bytes;
        first[best] = next[first[best]];
    }
    free(sorted);
    free(next);
    return good;
}
