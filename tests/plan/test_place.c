// test: links=train,nn,exec,io,cpu,plan,graph,base timeout=300
// Placements of random and of adversarial blocks, each held against every pair of blocks: none overlap, lives are
// shortened within what was allowed and only under a limit, pinned blocks stay, and the height is what it takes.
#include "check.h"
#include "plan/place.h"
#include "plan/support_graphs.h"

enum { MOST = 400, STEPS = 200 };

static bool meet(const pb_block *a, const pb_block *b) {
    return a->first <= b->last && b->first <= a->last && a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes;
}

static uint64_t place_as(const char *what, uint64_t seed, const pb_block *wished, pb_block *blocks, uint32_t count,
                         uint64_t limit, bool shortens) {
    static pb_block again[MOST];
    memcpy(blocks, wished, count * sizeof *blocks);
    memcpy(again, wished, count * sizeof *blocks);
    uint64_t height = 0, repeated = 0, needed = 0;
    CHECK_OK(pb_blocks_place(blocks, count, STEPS, limit, shortens, &height));
    CHECK_OK(pb_blocks_place(again, count, STEPS, limit, shortens, &repeated));
    CHECK_THAT(height == repeated, "%s %llu: not the same twice", what, (unsigned long long)seed);
    if (height > limit) {  // nothing is placed
        CHECK(memcmp(blocks, wished, count * sizeof *blocks) == 0);
        return height;
    }
    bool whole = true;
    for (uint32_t i = 0; i < count; i++) {
        const pb_block *b = &blocks[i], *w = &wished[i];
        if (!b->bytes) continue;
        CHECK_THAT(again[i].offset == b->offset && again[i].first == b->first && again[i].last == b->last,
                   "%s %llu: block %u not the same twice", what, (unsigned long long)seed, i);
        CHECK_THAT(w->first <= b->first && b->first <= w->needed && w->done <= b->last && b->last <= w->last,
                   "%s %llu: block %u lives %u..%u", what, (unsigned long long)seed, i, b->first, b->last);
        whole = whole && b->first == w->first && b->last == w->last;
        CHECK_THAT(!w->pinned || w->offset == b->offset, "%s %llu: block %u moved", what, (unsigned long long)seed, i);
        if (b->offset + b->bytes > needed) needed = b->offset + b->bytes;
        for (uint32_t k = 0; k < i; k++)
            CHECK_THAT(!blocks[k].bytes || !meet(b, &blocks[k]), "%s %llu: blocks %u and %u overlap", what,
                       (unsigned long long)seed, k, i);
    }
    CHECK_THAT(height == needed, "%s %llu: %llu bytes, not %llu", what, (unsigned long long)seed,
               (unsigned long long)height, (unsigned long long)needed);
    CHECK(height >= pb_blocks_lower_bound(blocks, count, STEPS));
    CHECK(whole || limit < UINT64_MAX);
    return height;
}

// Both ways; the result is that of the first one that fits. Returns the height.
static uint64_t place(const char *what, uint64_t seed, pb_block *blocks, uint32_t count, uint64_t limit) {
    static pb_block wished[MOST], shortened[MOST];
    memcpy(wished, blocks, count * sizeof *blocks);
    const uint64_t height = place_as(what, seed, wished, blocks, count, limit, false);
    if (limit == UINT64_MAX) return height;
    const uint64_t other = place_as(what, seed, wished, shortened, count, limit, true);
    if (height <= limit) return height;
    memcpy(blocks, shortened, count * sizeof *blocks);
    return other;
}

static pb_block random_block(uint64_t *dice, uint32_t longest, uint32_t slack) {
    const uint32_t needed = support_random(dice, STEPS), left = STEPS - needed;
    const uint32_t done = needed + support_random(dice, longest < left ? longest : left);
    const uint32_t before = support_random(dice, slack + 1), after = support_random(dice, slack + 1);
    return (pb_block){.bytes = 256 * (uint64_t)support_random(dice, support_random(dice, 4) ? 8 : 200),
                      .first = before < needed ? needed - before : 0,
                      .needed = needed,
                      .done = done,
                      .last = done + after < STEPS ? done + after : STEPS - 1};
}

// Homes from the bottom, each there before and after a hole or all the time.
static uint32_t add_homes(pb_block *blocks, uint64_t *dice, uint32_t homes) {
    uint32_t count = 0;
    uint64_t offset = 0;
    for (uint32_t h = 0; h < homes; h++) {
        const uint64_t bytes = 256 * (uint64_t)(1 + support_random(dice, 60));
        const uint32_t hole = support_random(dice, STEPS), end = hole + 1 + support_random(dice, STEPS - hole);
        const bool always = support_random(dice, 3) == 0 || end >= STEPS;
        const uint32_t last = always ? STEPS - 1 : hole, done = last - support_random(dice, always ? 1 : hole + 1);
        blocks[count++] = (pb_block){.bytes = bytes, .done = done, .last = last, .pinned = true, .offset = offset};
        if (!always)
            blocks[count++] = (pb_block){.bytes = bytes,
                                         .first = end,
                                         .needed = end + support_random(dice, STEPS - end),
                                         .done = STEPS - 1,
                                         .last = STEPS - 1,
                                         .pinned = true,
                                         .offset = offset};
        offset += bytes;
    }
    return count;
}

static void test_random(uint64_t seed) {
    static pb_block blocks[MOST], wished[MOST];
    uint64_t dice = seed + 1;
    const bool many = seed % 16 == 0;  // more than fit one tray
    uint32_t count = support_random(&dice, 2) ? add_homes(blocks, &dice, support_random(&dice, 20)) : 0;
    const uint32_t others = support_random(&dice, many ? 350 : 60), slack = support_random(&dice, 2) * 20;
    const uint32_t longest = 1 + support_random(&dice, STEPS);
    for (uint32_t i = 0; i < others; i++) blocks[count++] = random_block(&dice, longest, slack);
    memcpy(wished, blocks, sizeof blocks);
    const uint64_t free_height = place("random", seed, blocks, count, UINT64_MAX);
    // Limits below, at and above what whole lives take.
    for (uint32_t percent = 0; percent <= 120; percent += 30) {
        memcpy(blocks, wished, sizeof blocks);
        place("limited", seed, blocks, count, free_height * percent / 100);
    }
}

// Activations that pile up and shrink while gradients pile up, both of the same size: the bound can be met, by homes
// whose holes take the gradients.
static void test_step(void) {
    static pb_block blocks[MOST];
    enum { LAYERS = 60 };
    uint32_t count = 0;
    for (uint32_t i = 0; i < LAYERS; i++) {
        const uint64_t bytes = 256 * (uint64_t)(1 + i * 7 % 13);
        const uint32_t back = 2 * LAYERS - 1 - i;
        blocks[count++] = (pb_block){.bytes = bytes, .first = i, .needed = i, .done = back, .last = back};
        blocks[count++] =
            (pb_block){.bytes = bytes, .first = back + 1, .needed = back + 1, .done = STEPS - 1, .last = STEPS - 1};
    }
    const uint64_t bound = pb_blocks_lower_bound(blocks, count, STEPS);
    const uint64_t height = place("step", 0, blocks, count, UINT64_MAX);
    CHECK_THAT(height * 100 <= bound * 105, "%llu over a bound of %llu", (unsigned long long)height,
               (unsigned long long)bound);
}

// Where only shorter lives fit a limit, they are taken.
static void test_shortened(void) {
    pb_block blocks[2] = {{.bytes = 1024, .first = 0, .needed = 0, .done = 50, .last = 90},
                          {.bytes = 1024, .first = 20, .needed = 70, .done = 99, .last = 99}};
    pb_block wished[2];
    memcpy(wished, blocks, sizeof blocks);
    CHECK(place("two", 0, blocks, 2, UINT64_MAX) == 2048);
    memcpy(blocks, wished, sizeof blocks);
    CHECK(place("two", 0, blocks, 2, 2048) == 2048);
    CHECK(blocks[0].last == 90 && blocks[1].first == 20);
    memcpy(blocks, wished, sizeof blocks);
    CHECK(place("two", 0, blocks, 2, 1024) == 1024);
    CHECK(blocks[0].last + 1 == blocks[1].first);  // what one of them gives up the other one gets
    // A home that wishes to stay gives way as well.
    memcpy(blocks, wished, sizeof blocks);
    blocks[0].pinned = true;
    CHECK(place("a home", 0, blocks, 2, 1024) == 1024);
}

// A staircase, first fit's worst enemies: small ones that die at once between large ones that stay; nothing at all.
static void test_adversarial(void) {
    static pb_block blocks[MOST];
    for (uint32_t i = 0; i < MOST; i++) {
        const uint32_t first = i / 2 % STEPS;
        const bool stays = i % 2;
        blocks[i] = (pb_block){.bytes = stays ? 512 : 256 * (uint64_t)(1 + i / 2), .first = first, .needed = first};
        blocks[i].done = blocks[i].last = stays ? STEPS - 1 : first;
    }
    place("sawtooth", 0, blocks, MOST, UINT64_MAX);
    for (uint32_t i = 0; i < MOST; i++) {
        blocks[i] = (pb_block){.bytes = 256, .first = i % STEPS, .needed = i % STEPS};
        blocks[i].done = blocks[i].last = i % STEPS + (STEPS - i % STEPS) / 2;
        if (blocks[i].last >= STEPS) blocks[i].done = blocks[i].last = STEPS - 1;
    }
    // Of one size, first fit by start would meet the bound; it is never far.
    const uint64_t bound = pb_blocks_lower_bound(blocks, MOST, STEPS);
    CHECK(place("equal", 0, blocks, MOST, UINT64_MAX) <= 2 * bound);
    for (uint32_t i = 0; i < MOST; i++) blocks[i].bytes = 0;
    CHECK(place("empty", 0, blocks, MOST, UINT64_MAX) == 0);
    CHECK(place("none", 0, blocks, 0, 0) == 0);
}

int main(void) {
    for (uint64_t seed = 0; seed < 4000; seed++) test_random(seed);
    test_step();
    test_shortened();
    test_adversarial();
    return CHECK_DONE();
}
