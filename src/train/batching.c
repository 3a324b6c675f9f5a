#include "train/batching.h"

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

pb_batching pb_batching_of(const pb_config *config, int64_t length) {
    const int64_t sides = config->with_prior_preservation ? 2 : 1, micro_batch = config->memory.micro_batch;
    return (pb_batching){.length = length,
                         .batch = config->train_batch_size,
                         .sides = sides,
                         .accumulation = config->gradient_accumulation_steps,
                         .pass_images = micro_batch ? micro_batch : config->train_batch_size * sides};
}

int64_t pb_batching_batches(const pb_batching *b) {
    return divide_up(b->length, b->batch);
}

int64_t pb_batching_steps(const pb_batching *b) {
    return divide_up(pb_batching_batches(b), b->accumulation);
}

int64_t pb_batching_images(const pb_batching *b, int64_t batch) {
    const int64_t left = b->length - batch * b->batch;
    return (left < b->batch ? left : b->batch) * b->sides;
}

bool pb_batching_opens(const pb_batching *b, int64_t batch) {
    return batch % b->accumulation == 0;
}

bool pb_batching_closes(const pb_batching *b, int64_t batch) {
    return (batch + 1) % b->accumulation == 0 || batch + 1 == pb_batching_batches(b);
}

int64_t pb_batching_longest(const pb_batching *b) {
    const int64_t batches = pb_batching_batches(b);
    return batches < b->accumulation ? batches : b->accumulation;
}

pb_pass pb_batching_pass(const pb_batching *b, int64_t batch, int64_t first, int64_t *images) {
    const int64_t left = pb_batching_images(b, batch) - first;
    *images = left < b->pass_images ? left : b->pass_images;
    const bool opens = first == 0 && pb_batching_opens(b, batch);
    const bool closes = *images == left && pb_batching_closes(b, batch);
    if (opens) return closes ? PB_PASS_WHOLE : PB_PASS_FIRST;
    return closes ? PB_PASS_LAST : PB_PASS_NEXT;
}
