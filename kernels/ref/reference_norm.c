// Group and layer normalisation with their gradients. Both are "sets" of elements that share a mean and a variance:
// element e of set s, with the channel that selects its gamma and beta.
#include <math.h>

#include "kernels/ref/reference_activations.h"
#include "kernels/ref/reference_kernels.h"

typedef struct sets {
    int64_t count, size;             // sets, elements in each
    int64_t channels, groups, span;  // span: channels of a set
    int64_t pixels;                  // of an image, for group_norm
} sets;

// x: [N,..,C], groups of channels per image
static sets group_sets(const pb_kernel_args *args, const pb_tensor *x) {
    const int64_t images = x->shape.dim[0], channels = pb_shape_last(x->shape), groups = args->attr->norm.groups;
    const int64_t pixels = pb_shape_rows(x->shape) / images;
    return (sets){images * groups, pixels * (channels / groups), channels, groups, channels / groups, pixels};
}

// x: [..,C], a set per row: an image of one pixel and one group
static sets row_sets(const pb_tensor *x) {
    const int64_t channels = pb_shape_last(x->shape);
    return (sets){pb_shape_rows(x->shape), channels, channels, 1, channels, 1};
}

static int64_t index_of(const sets *g, int64_t s, int64_t e) {
    const int64_t pixel = s / g->groups * g->pixels + e / g->span;
    return pixel * g->channels + s % g->groups * g->span + e % g->span;
}

static void normalise(const pb_kernel_args *args, sets g, bool silu) {
    const pb_tensor *x = &args->in[0], *gamma = &args->in[1], *beta = &args->in[2];
    const pb_tensor *y = &args->out[0], *stats = &args->out[1];
    for (int64_t s = 0; s < g.count; s++) {
        double mean = 0, variance = 0;
        for (int64_t e = 0; e < g.size; e++) mean += ref_get(x, index_of(&g, s, e));
        mean /= (double)g.size;
        for (int64_t e = 0; e < g.size; e++) variance += pow(ref_get(x, index_of(&g, s, e)) - mean, 2);
        const double inverse = 1 / sqrt(variance / (double)g.size + args->attr->norm.eps);
        for (int64_t e = 0; e < g.size; e++) {
            const int64_t i = index_of(&g, s, e), c = i % g.channels;
            const double z = (ref_get(x, i) - mean) * inverse * ref_get(gamma, c) + ref_get(beta, c);
            ref_put(y, i, silu ? ref_activation(PB_UNARY_SILU, ref_round(y->dtype, z)) : z);
        }
        if (!ref_has(stats)) continue;
        ref_put(stats, 2 * s, mean);
        ref_put(stats, 2 * s + 1, inverse);
    }
}

typedef struct backward {
    sets g;
    const pb_tensor *dy, *x, *gamma, *beta, *stats, *addend;  // beta: with SiLU only, or NULL
    const pb_tensor *dx, *dgamma, *dbeta;
} backward;

// (x - mean) / std of element i of set s, and the gradient of what follows the normalisation, gamma x + beta.
static double normalised(const backward *b, int64_t s, int64_t i, double *dz) {
    const double unit = (ref_get(b->x, i) - ref_get(b->stats, 2 * s)) * ref_get(b->stats, 2 * s + 1);
    const int64_t c = i % b->g.channels;
    *dz = ref_get(b->dy, i);
    if (b->beta) *dz *= ref_activation_slope(PB_UNARY_SILU, unit * ref_get(b->gamma, c) + ref_get(b->beta, c));
    return unit;
}

static void differentiate(const backward *b) {
    const sets *g = &b->g;
    double dz;
    for (int64_t c = 0; c < g->channels; c++) {
        double dgamma = 0, dbeta = 0;
        for (int64_t s = c / g->span; s < g->count; s += g->groups) {
            for (int64_t p = 0; p < g->pixels; p++) {
                dgamma += normalised(b, s, index_of(g, s, p * g->span + c % g->span), &dz) * dz;
                dbeta += dz;
            }
        }
        if (ref_has(b->dgamma)) ref_put(b->dgamma, c, dgamma);
        if (ref_has(b->dbeta)) ref_put(b->dbeta, c, dbeta);
    }
    for (int64_t s = 0; ref_has(b->dx) && s < g->count; s++) {
        double sum = 0, product = 0;
        for (int64_t e = 0; e < g->size; e++) {
            const int64_t i = index_of(g, s, e);
            const double unit = normalised(b, s, i, &dz);
            sum += dz * ref_get(b->gamma, i % g->channels);
            product += dz * ref_get(b->gamma, i % g->channels) * unit;
        }
        for (int64_t e = 0; e < g->size; e++) {
            const int64_t i = index_of(g, s, e);
            const double unit = normalised(b, s, i, &dz);
            const double centred = dz * ref_get(b->gamma, i % g->channels) - (sum + unit * product) / (double)g->size;
            ref_put(b->dx, i, ref_add(b->dx, centred * ref_get(b->stats, 2 * s + 1), b->addend, i));
        }
    }
}

void pb_ref_group_norm(const pb_kernel_args *args) {
    normalise(args, group_sets(args, &args->in[0]), args->attr->norm.silu);
}

void pb_ref_group_norm_bwd(const pb_kernel_args *args) {
    const pb_tensor *in = args->in, *out = args->out;
    const backward b = {group_sets(args, &in[1]),
                        &in[0],
                        &in[1],
                        &in[2],
                        args->attr->norm.silu ? &in[3] : NULL,
                        &in[4],
                        &in[5],
                        &out[0],
                        &out[1],
                        &out[2]};
    differentiate(&b);
}

void pb_ref_layer_norm(const pb_kernel_args *args) {
    normalise(args, row_sets(&args->in[0]), false);
}

void pb_ref_layer_norm_bwd(const pb_kernel_args *args) {
    const pb_tensor *in = args->in, *out = args->out;
    const backward b = {row_sets(&in[1]), &in[0], &in[1], &in[2], NULL, &in[3], &in[4], &out[0], &out[1], &out[2]};
    differentiate(&b);
}
