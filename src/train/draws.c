#include "train/draws.h"

#include <assert.h>
#include <stdlib.h>

struct pb_draws {
    pb_rng rng;
    pb_draws_options options;  // its arrays are ours
    int64_t length;            // items of an epoch
    int64_t epoch;             // of `ahead`
    int64_t position;          // items of the epoch that were handed out or are in `ahead`
    int64_t *order;            // (length)
    int64_t ahead_count;       // 0: the epoch is over, or none has begun
    pb_draws_item *ahead;      // (batch): the batch whose crops are drawn already
    pb_draws_item *current;    // (batch)
};

static void *copy(const void *array, int64_t count, size_t size) {
    void *const copied = calloc((size_t)count, size);
    if (copied) memcpy(copied, array, (size_t)count * size);
    return copied;
}

pb_status pb_draws_create(const pb_draws_options *options, const pb_rng *rng, pb_draws **draws) {
    assert(options->instances > 0 && options->classes >= 0 && options->batch > 0);
    pb_status status = PB_OK;
    pb_draws *d = calloc(1, sizeof *d);
    if (!d) return pb_error(PB_ERR_MEMORY, "out of memory");
    d->rng = *rng;
    d->options = *options;
    d->options.instance = d->options.class_ = NULL;
    d->length = options->instances > options->classes ? options->instances : options->classes;
    d->epoch = -1;
    d->order = calloc((size_t)d->length, sizeof *d->order);
    d->ahead = calloc((size_t)options->batch, sizeof *d->ahead);
    d->current = calloc((size_t)options->batch, sizeof *d->current);
    bool complete = d->order && d->ahead && d->current;
    if (options->instance)
        complete &= !!(d->options.instance = copy(options->instance, options->instances, sizeof(pb_crop_slack)));
    if (options->class_ && options->classes)
        complete &= !!(d->options.class_ = copy(options->class_, options->classes, sizeof(pb_crop_slack)));
    if (!complete) PB_FAIL(PB_ERR_MEMORY, "out of memory for the order of %lld pictures", (long long)d->length);
    *draws = d;
    d = NULL;
fail:
    pb_draws_destroy(d);
    return status;
}

void pb_draws_destroy(pb_draws *draws) {
    if (!draws) return;
    free((void *)draws->options.instance);
    free((void *)draws->options.class_);
    free(draws->order);
    free(draws->ahead);
    free(draws->current);
    free(draws);
}

static pb_crop draw_crop(pb_rng *rng, const pb_crop_slack *slacks, int64_t picture) {
    pb_crop crop = {0};
    if (!slacks) return crop;
    const pb_crop_slack slack = slacks[picture];
    if (slack.rows == 0 && slack.columns == 0) return crop;
    crop.top = (int32_t)pb_rng_randint(rng, 0, slack.rows + 1);
    crop.left = (int32_t)pb_rng_randint(rng, 0, slack.columns + 1);
    return crop;
}

// Fills `ahead` with the next items of the epoch and draws their crops.
static void load_ahead(pb_draws *d) {
    const int64_t rest = d->length - d->position;
    d->ahead_count = rest < d->options.batch ? rest : d->options.batch;
    for (int64_t i = 0; i < d->ahead_count; i++) {
        pb_draws_item *const item = &d->ahead[i];
        const int64_t index = d->order[d->position + i];
        *item = (pb_draws_item){.index = index, .instance = index % d->options.instances, .class_ = -1};
        item->instance_crop = draw_crop(&d->rng, d->options.instance, item->instance);
        if (d->options.classes == 0) continue;
        item->class_ = index % d->options.classes;
        item->class_crop = draw_crop(&d->rng, d->options.class_, item->class_);
    }
    d->position += d->ahead_count;
}

pb_draws_batch pb_draws_next(pb_draws *d) {
    if (d->ahead_count == 0) {
        pb_rng shuffle;
        (void)pb_rng_random(&d->rng);
        pb_rng_seed(&shuffle, (uint64_t)pb_rng_random(&d->rng));
        pb_rng_randperm(&shuffle, d->order, (size_t)d->length);
        d->epoch++;
        d->position = 0;
        load_ahead(d);
    }
    pb_draws_item *const items = d->ahead;
    pb_draws_batch batch = {.epoch = d->epoch, .count = d->ahead_count, .items = items};
    batch.number = (d->position - 1) / d->options.batch;
    d->ahead = d->current;
    d->current = items;
    load_ahead(d);
    batch.last = d->ahead_count == 0;
    return batch;
}

// randn_like of latents that lie in memory as (N,H,W,C); `noise` gets them as (N,C,H,W).
static void draw_channels_last(pb_rng *rng, const pb_draws_pass *pass) {
    float texel[PB_DRAWS_CHANNELS];
    for (size_t n = 0; n < pass->images; n++) {
        float *const image = pass->noise + n * pass->channels * pass->pixels;
        for (size_t i = 0; i < pass->pixels; i++) {
            pb_rng_randn_permuted(rng, pass->dtype, texel, pass->channels);
            for (size_t c = 0; c < pass->channels; c++) image[c * pass->pixels + i] = texel[c];
        }
    }
}

void pb_draws_fill(pb_draws *d, const pb_draws_pass *pass) {
    assert(pass->channels <= PB_DRAWS_CHANNELS);
    const size_t values = pass->images * pass->channels * pass->pixels;
    pb_rng_randn_as(&d->rng, pass->dtype, pass->sample, values);
    if (pass->vae_attention && pass->images > 1 && pass->pixels > 1)
        draw_channels_last(&d->rng, pass);
    else
        pb_rng_randn_as(&d->rng, pass->dtype, pass->noise, values);
    if (pass->offset) pb_rng_randn(&d->rng, pass->offset, pass->images * pass->channels);
    for (size_t i = 0; i < pass->images; i++) pass->timesteps[i] = pb_rng_randint(&d->rng, 0, pass->train_timesteps);
}

// --- State: the generator, six counts that must agree or say where the run is, the order, the crops of `ahead` ---
enum { AT_COUNTS = PB_RNG_STATE_BYTES, COUNTS = 6, AT_ORDER = AT_COUNTS + 8 * COUNTS };

static void put_i64(uint8_t *bytes, int64_t value) {
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)value >> 8 * i);
}

static int64_t get_i64(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value |= (uint64_t)bytes[i] << 8 * i;
    return (int64_t)value;
}

static void crops_of(pb_draws_item *item, int32_t *crops[4]) {
    crops[0] = &item->instance_crop.top;
    crops[1] = &item->instance_crop.left;
    crops[2] = &item->class_crop.top;
    crops[3] = &item->class_crop.left;
}

size_t pb_draws_state_bytes(const pb_draws *d) {
    return AT_ORDER + 8 * (size_t)d->length + 4 * 8 * (size_t)d->options.batch;
}

void pb_draws_save(const pb_draws *d, uint8_t *bytes) {
    pb_rng_save(&d->rng, bytes);
    const int64_t counts[COUNTS] = {d->options.instances, d->options.classes, d->options.batch, d->epoch,
                                    d->position,          d->ahead_count};
    for (int i = 0; i < COUNTS; i++) put_i64(bytes + AT_COUNTS + 8 * i, counts[i]);
    uint8_t *at = bytes + AT_ORDER;
    for (int64_t i = 0; i < d->length; i++, at += 8) put_i64(at, d->order[i]);
    for (int64_t i = 0; i < d->options.batch; i++) {
        pb_draws_item item = i < d->ahead_count ? d->ahead[i] : (pb_draws_item){0};
        int32_t *crops[4];
        crops_of(&item, crops);
        for (int j = 0; j < 4; j++, at += 8) put_i64(at, *crops[j]);
    }
}

// The order must be a permutation, where there is one: a bad one would read outside the arrays of pictures.
static bool is_permutation(const uint8_t *at, int64_t length, bool *seen) {
    for (int64_t i = 0; i < length; i++) {
        const int64_t index = get_i64(at + 8 * i);
        if (index < 0 || index >= length || seen[index]) return false;
        seen[index] = true;
    }
    return true;
}

static bool crop_fits(const uint8_t *at, const pb_crop_slack *slacks, int64_t picture) {
    const pb_crop_slack slack = slacks && picture >= 0 ? slacks[picture] : (pb_crop_slack){0};
    const int64_t top = get_i64(at), left = get_i64(at + 8);
    return top >= 0 && top <= slack.rows && left >= 0 && left <= slack.columns;
}

// The item of `ahead` whose crops are at `at`.
static pb_draws_item item_of(const pb_draws *d, int64_t index, const uint8_t *at) {
    pb_draws_item item = {.index = index, .instance = index % d->options.instances, .class_ = -1};
    if (d->options.classes) item.class_ = index % d->options.classes;
    int32_t *crops[4];
    crops_of(&item, crops);
    for (int i = 0; i < 4; i++) *crops[i] = (int32_t)get_i64(at + 8 * i);
    return item;
}

static bool crops_fit(const pb_draws *d, const uint8_t *bytes, int64_t position, int64_t ahead) {
    const uint8_t *at = bytes + AT_ORDER + 8 * d->length;
    for (int64_t i = 0; i < ahead; i++, at += 32) {
        const pb_draws_item item = item_of(d, get_i64(bytes + AT_ORDER + 8 * (position - ahead + i)), at);
        if (!crop_fits(at, d->options.instance, item.instance)) return false;
        if (!crop_fits(at + 16, d->options.class_, item.class_)) return false;
    }
    return true;
}

pb_status pb_draws_restore(pb_draws *d, const uint8_t *bytes, size_t count) {
    pb_status status = PB_OK;
    bool *const seen = calloc((size_t)d->length, 1);
    if (!seen) PB_FAIL(PB_ERR_MEMORY, "out of memory");
    int64_t counts[COUNTS] = {0};
    for (int i = 0; i < COUNTS && count == pb_draws_state_bytes(d); i++) counts[i] = get_i64(bytes + AT_COUNTS + 8 * i);
    if (counts[0] != d->options.instances || counts[1] != d->options.classes || counts[2] != d->options.batch)
        PB_FAIL(PB_ERR_FORMAT, "the checkpoint was made with other pictures or another train_batch_size; "
                               "resume with the same, or start anew");
    const int64_t epoch = counts[3], position = counts[4], ahead = counts[5];
    bool sound = epoch >= -1 && position >= 0 && position <= d->length;
    sound = sound && ahead >= 0 && ahead <= d->options.batch && ahead <= position && (epoch >= 0 || position == 0);
    sound = sound && (epoch < 0 || is_permutation(bytes + AT_ORDER, d->length, seen));
    if (!sound || !crops_fit(d, bytes, position, ahead))
        PB_FAIL(PB_ERR_FORMAT, "the checkpoint's order of pictures is damaged");
    PB_TRY(pb_rng_restore(&d->rng, bytes));
    d->epoch = epoch;
    d->position = position;
    d->ahead_count = ahead;
    for (int64_t i = 0; i < d->length; i++) d->order[i] = get_i64(bytes + AT_ORDER + 8 * i);
    const uint8_t *at = bytes + AT_ORDER + 8 * d->length;
    for (int64_t i = 0; i < ahead; i++, at += 32) d->ahead[i] = item_of(d, d->order[position - ahead + i], at);
fail:
    free(seen);
    return status;
}
