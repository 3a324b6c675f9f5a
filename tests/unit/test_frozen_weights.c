// test: links=train,exec,nn,io,plan,graph,cpu,ref,quant,base
// frozen_weights: 8bit. The demo model's VAE and text encoder from codes: less room on the device, results near those
// of the whole weights and the same each time; a weight is what the codec makes of it.
#include <stdlib.h>

#include "check.h"
#include "quant/codecs.h"
#include "train/trainer_parts.h"
#include "train/weights.h"

#define MODEL PB_SOURCE "/demo/emoji-sd"
enum { SIZE = 64, TOKENS = 16 };

// |a - b| / |b|
static double distance(const float *a, const float *b, size_t count) {
    double off = 0, all = 0;
    for (size_t i = 0; i < count; i++) {
        off += pow((double)a[i] - b[i], 2);
        all += pow((double)b[i], 2);
    }
    return sqrt(off / all);
}

static float *widened(pb_dtype dtype, const void *data, size_t count) {
    float *values = malloc(count * sizeof *values);
    if (!values) exit(1);
    pb_convert(PB_F32, values, dtype, data, count);
    return values;
}

static void check_weights(const pb_vae_encoder *e, const pb_weights *weights) {
    const pb_module *m = e->module;
    int coded = 0;
    for (uint32_t i = 0; i < m->param_count; i++) {
        const pb_param *p = &m->params[i];
        const int64_t count = pb_shape_count(p->file_shape);
        CHECK_THAT((p->codes != PB_NONE) == (p->narrow && count >= PB_CODED_ELEMENTS), "%s", p->name);
        if (p->codes == PB_NONE) continue;
        const pb_weight *weight = pb_weights_find(weights, p->name);
        float *x = malloc((size_t)count * 4), *turned = malloc((size_t)count * 4), *back = malloc((size_t)count * 4);
        float *scales = malloc((size_t)pb_block8_scales(count) * 4);
        uint8_t *codes = malloc((size_t)count);
        if (!x || !turned || !back || !scales || !codes) exit(1);
        CHECK_OK(pb_safetensors_read(weight->file, weight->entry, PB_F32, x));
        CHECK_OK(pb_executor_read(e->executor, p->codes, 0, codes, (uint64_t)count));
        CHECK_OK(pb_executor_read(e->executor, p->scales, 0, scales, (uint64_t)pb_block8_scales(count) * 4));
        pb_codecs_scalar.decode8(true, codes, scales, count, back);
        const pb_shape s = p->file_shape;
        const int64_t inputs = p->layout == PB_LAYOUT_OIHW ? s.dim[1] : 1;
        const int64_t pixels = p->layout == PB_LAYOUT_OIHW ? s.dim[2] * s.dim[3] : 1;
        for (int64_t k = 0; k < count; k++) {
            const int64_t o = k / (inputs * pixels), at = k % (inputs * pixels);
            turned[k] = x[(o * inputs + at % inputs) * pixels + at / inputs];
        }
        double most = 0;
        for (int64_t k = 0; k < count; k++) most = fmax(most, fabs(turned[k] - back[k]) / scales[k / PB_BLOCK8]);
        CHECK_THAT(most <= 0.00705, "%s: a weight is off by %.5f of its block's largest", p->name, most);
        coded++;
        free(x), free(turned), free(back), free(scales), free(codes);
    }
    CHECK_THAT(coded > 10, "%d kernels are in codes", coded);
}

typedef struct encoded {
    uint64_t vae_bytes, text_bytes;
    float *moments, *hidden;  // mean and deviation; (T,D)
    size_t moment_count, hidden_count;
} encoded;

static encoded encode(const pb_model_dir *model, const pb_architecture *a, pb_dtype dtype, pb_frozen_weights frozen) {
    encoded r = {0};
    pb_vae_encoder *e = NULL;
    pb_weights *weights = NULL;
    const pb_encoding encoding = {.backend = pb_backend_cpu(), .model = model, .dtype = dtype, .weights = frozen};
    CHECK_OK(pb_vae_encoder_create(&encoding, &a->vae, SIZE, &e));
    if (!e) exit(1);
    CHECK_OK(pb_model_dir_weights(model, PB_PART_VAE, NULL, &weights));
    if (frozen == PB_FROZEN_8BIT) check_weights(e, weights);
    pb_weights_close(weights);
    r.vae_bytes = e->program->tier_bytes[PB_TIER_DEVICE];
    const size_t elements = (size_t)(e->channels * e->latent_pixels);
    r.moment_count = 2 * elements;
    r.moments = malloc(r.moment_count * sizeof *r.moments);
    pb_moments moments = {r.moments, r.moments + elements};
    pb_image image = {0};
    CHECK_OK(pb_image_load(PB_SOURCE "/demo/blue-fox/0.png", NULL, &image));
    CHECK_OK(pb_vae_encoder_run(e, &image, (pb_crop){0, 0}, &moments));
    pb_image_deinit(&image);
    pb_vae_encoder_destroy(e);
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++) ids[i] = 300 + 17 * i;
    r.hidden_count = (size_t)TOKENS * (size_t)a->clip.hidden;
    void *hidden = malloc(r.hidden_count * sizeof(float));
    CHECK_OK(pb_encode_prompts(&encoding, &a->clip, ids, 1, TOKENS, hidden, &r.text_bytes));
    r.hidden = widened(dtype, hidden, r.hidden_count);
    free(hidden);
    return r;
}

static void drop(encoded *r) {
    free(r->moments);
    free(r->hidden);
}

static void check_dtype(const pb_model_dir *model, const pb_architecture *a, pb_dtype dtype) {
    encoded whole = encode(model, a, dtype, PB_FROZEN_FULL), coded = encode(model, a, dtype, PB_FROZEN_8BIT);
    encoded again = encode(model, a, dtype, PB_FROZEN_8BIT);
    const double vae = distance(coded.moments, whole.moments, whole.moment_count);
    const double text = distance(coded.hidden, whole.hidden, whole.hidden_count);
    printf("%s: VAE %.0f and %.0f KiB, moments %.4f off; text encoder %.0f and %.0f KiB, hidden states %.4f off\n",
           pb_dtype_name(dtype), (double)whole.vae_bytes / 1024, (double)coded.vae_bytes / 1024, vae,
           (double)whole.text_bytes / 1024, (double)coded.text_bytes / 1024, text);
    CHECK_THAT(vae > 0 && vae < 0.03, "the VAE's moments are %.4f off", vae);
    CHECK_THAT(text > 0 && text < 0.03, "the hidden states are %.4f off", text);
    CHECK(coded.vae_bytes < whole.vae_bytes && coded.text_bytes < whole.text_bytes);
    CHECK(!memcmp(coded.moments, again.moments, coded.moment_count * sizeof(float)));
    CHECK(!memcmp(coded.hidden, again.hidden, coded.hidden_count * sizeof(float)));
    drop(&whole), drop(&coded), drop(&again);
}

int main(void) {
    pb_model_dir *model = NULL;
    pb_architecture architecture;
    CHECK_OK(pb_model_dir_open(MODEL, NULL, &model));
    if (!model) return 1;
    CHECK_OK(pb_architecture_read(model, &architecture));
    check_dtype(model, &architecture, PB_F32);
    check_dtype(model, &architecture, PB_F16);
    check_dtype(model, &architecture, PB_BF16);
    pb_model_dir_close(model);
    return CHECK_DONE();
}
