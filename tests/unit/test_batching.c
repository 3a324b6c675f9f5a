// test: links=train,base
// How an epoch is cut into batches, steps and passes: every picture once, every step opened and closed once, and the
// last batch of an epoch always closes one.
#include "check.h"
#include "train/batching.h"

static void walk(const pb_batching *b) {
    int64_t pictures = 0, steps = 0, longest = 0, run = 0;
    bool open = false;
    for (int64_t j = 0; j < pb_batching_batches(b); j++) {
        CHECK(pb_batching_opens(b, j) == !open);
        open = true;
        run++;
        for (int64_t first = 0, images; first < pb_batching_images(b, j); first += images) {
            const pb_pass pass = pb_batching_pass(b, j, first, &images);
            CHECK(images > 0 && images <= b->pass_images);
            pictures += images;
            const bool begins = first == 0 && pb_batching_opens(b, j);
            const bool ends = first + images == pb_batching_images(b, j) && pb_batching_closes(b, j);
            CHECK((pass == PB_PASS_WHOLE || pass == PB_PASS_FIRST) == begins);
            CHECK((pass == PB_PASS_WHOLE || pass == PB_PASS_LAST) == ends);
        }
        if (!pb_batching_closes(b, j)) continue;
        steps++;
        if (run > longest) longest = run;
        run = 0;
        open = false;
    }
    CHECK(!open);
    CHECK(pictures == b->length * b->sides);
    CHECK(steps == pb_batching_steps(b));
    CHECK(longest == pb_batching_longest(b));
}

int main(void) {
    for (int64_t length = 1; length <= 13; length++)
        for (int64_t batch = 1; batch <= 5; batch++)
            for (int64_t accumulation = 1; accumulation <= 4; accumulation++)
                for (int64_t sides = 1; sides <= 2; sides++)
                    for (int64_t pass = 1; pass <= batch * sides; pass++) {
                        const pb_batching b = {length, batch, sides, accumulation, pass};
                        walk(&b);
                    }
    return CHECK_DONE();
}
