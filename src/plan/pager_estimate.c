// How fast a step can be at best that moves what an attempt has decided to: from the bytes alone, before anything has
// an offset. Most attempts can be told from the best one by that.
#include "plan/pager.h"
#include "plan/predict.h"

uint32_t pb_pager_first_backward(const pb_pager *p) {
    uint32_t s = 0;
    while (s < p->slot_count &&
           (p->slots[s].node == UINT32_MAX || p->graph->nodes[p->slots[s].node].phase != PB_PHASE_BACKWARD))
        s++;
    return s;
}

static void add_update(const pb_pager *p, uint32_t unit, pb_work *work) {
    const pb_chunking *l = p->layout;
    const pb_layout_unit *u = &l->units[unit];
    const bool on_host = p->device.segments[p->gradient_segment + u->chunk].alternate;
    for (uint32_t i = u->first_slice; i < u->first_slice + u->slice_count; i++) {
        const uint32_t node = l->params[l->slices[i].param].node;
        const int64_t count = l->slices[i].count;
        if (on_host) {
            work->updates += pb_machine_update_seconds(p->machine, p->graph, node, count, PB_LANE_HOST);
            work->update_bytes += (double)count * (double)pb_update_bytes(p->graph, node);
        } else {
            work->compute += pb_machine_update_seconds(p->machine, p->graph, node, count, PB_LANE_COMPUTE);
        }
    }
}

static void add_slots(const pb_pager *p, uint32_t begin, uint32_t end, pb_work *work) {
    for (uint32_t s = begin; s < end; s++) {
        if (p->slots[s].node != UINT32_MAX)
            work->compute += pb_node_seconds(p->machine, p->graph, p->slots[s].node);
        else if (p->slots[s].unit != UINT32_MAX)
            add_update(p, p->slots[s].unit, work);
    }
}

// Moves that are wanted, or whose bytes are there, before slot `end`.
static void add_moves(const pb_tier_problem *t, uint32_t end, pb_lane towards, pb_lane away, pb_work *work) {
    for (uint32_t i = 0; i < t->block_count; i++) {
        const pb_tier_block *b = &t->blocks[i];
        const double bytes = (double)t->segments[b->segment].bytes;
        if (b->fetched && b->needed < end) work->moved[towards] += bytes;
        if (b->evicted && b->done < end) work->moved[away] += bytes;
    }
}

static pb_work work_until(const pb_pager *p, uint32_t end) {
    pb_work work = {0};
    add_slots(p, 0, end < p->slot_count ? end : p->slot_count, &work);
    add_moves(&p->device, end, PB_LANE_UPLOAD, PB_LANE_DOWNLOAD, &work);
    add_moves(&p->host, end, PB_LANE_READ, PB_LANE_WRITE, &work);
    return work;
}

static double longest(const pb_machine *machine, const pb_work *work) {
    double bounds[PB_BOUND_COUNT], most = 0;
    pb_work_bounds(machine, work, bounds);
    for (int i = 0; i < PB_BOUND_COUNT; i++)
        if (bounds[i] > most) most = bounds[i];
    return most;
}

static double less(double bytes, uint64_t room) {
    return bytes > (double)room ? bytes - (double)room : 0;
}

double pb_pager_bound(const pb_pager *p) {
    const uint32_t backward = pb_pager_first_backward(p);
    const pb_work all = work_until(p, UINT32_MAX);
    // What the forward pass needs has come before the backward pass begins, and of what it made anew all has left but
    // for what there is room for.
    pb_work forward = work_until(p, backward);
    const uint64_t *budget = p->request->budget;
    forward.moved[PB_LANE_DOWNLOAD] = less(forward.moved[PB_LANE_DOWNLOAD], budget[PB_TIER_DEVICE]);
    forward.moved[PB_LANE_WRITE] =
        less(less(forward.moved[PB_LANE_WRITE], budget[PB_TIER_DEVICE]), budget[PB_TIER_HOST]);
    const double step = longest(p->machine, &all);
    const double passes = longest(p->machine, &forward) + all.compute - forward.compute;
    return step > passes ? step : passes;
}
