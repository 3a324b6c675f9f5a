#include "quant/codecs.h"

#include "base/parallel.h"

const float pb_block8_map[2][256] = {
    {
#define PB_BLOCK8_SIGNED
#include "quant/block8_map.def"
#undef PB_BLOCK8_SIGNED
    },
    {
#define PB_BLOCK8_UNSIGNED
#include "quant/block8_map.def"
#undef PB_BLOCK8_UNSIGNED
    },
};

const pb_block8_decade pb_block8_decades[2][PB_BLOCK8_DECADES] = {{PB_BLOCK8_SIGNED_DECADES},
                                                                  {PB_BLOCK8_UNSIGNED_DECADES}};

const pb_codecs *pb_codecs_here(void) {
    switch (pb_cpu_isa().level) {
    case PB_ISA_AVX512: return &pb_codecs_avx512;
    case PB_ISA_AVX2: return &pb_codecs_avx2;
    default: return &pb_codecs_scalar;
    }
}

enum { GRAIN = 32 * 1024 };  // elements, whole blocks: less is not worth a second thread

typedef struct job {
    bool is_signed;
    pb_dtype type, residual_type;
    float *x;
    uint8_t *codes;
    float *scales;
    uint16_t *work;
    void *residual;
} job;

static void encode8_range(void *context, int64_t begin, int64_t end, int piece) {
    (void)piece;
    const job *j = context;
    pb_codecs_here()->encode8(j->is_signed, j->x + begin, end - begin, j->codes + begin, j->scales + begin / PB_BLOCK8);
}

static void decode8_range(void *context, int64_t begin, int64_t end, int piece) {
    (void)piece;
    const job *j = context;
    pb_codecs_here()->decode8(j->is_signed, j->codes + begin, j->scales + begin / PB_BLOCK8, end - begin, j->x + begin);
}

static void *residual_at(const job *j, int64_t i) {
    return (char *)j->residual + (size_t)i * pb_dtype_size(j->residual_type);
}

static void split_range(void *context, int64_t begin, int64_t end, int piece) {
    (void)piece;
    const job *j = context;
    pb_codecs_here()->split(j->type, j->residual_type, j->x + begin, end - begin, j->work + begin,
                            residual_at(j, begin));
}

static void join_range(void *context, int64_t begin, int64_t end, int piece) {
    (void)piece;
    const job *j = context;
    pb_codecs_here()->join(j->type, j->residual_type, j->work + begin, residual_at(j, begin), end - begin,
                           j->x + begin);
}

void pb_encode8(bool is_signed, const float *x, int64_t n, uint8_t *codes, float *scales) {
    job j = {.is_signed = is_signed, .x = (float *)x, .codes = codes, .scales = scales};
    pb_parallel_for(n, GRAIN, encode8_range, &j);
}

void pb_decode8(bool is_signed, const uint8_t *codes, const float *scales, int64_t n, float *x) {
    job j = {.is_signed = is_signed, .x = x, .codes = (uint8_t *)codes, .scales = (float *)scales};
    pb_parallel_for(n, GRAIN, decode8_range, &j);
}

void pb_split_weights(pb_dtype type, pb_dtype residual_type, const float *x, int64_t n, uint16_t *work,
                      void *residual) {
    job j = {.type = type, .residual_type = residual_type, .x = (float *)x, .work = work, .residual = residual};
    pb_parallel_for(n, GRAIN, split_range, &j);
}

void pb_join_weights(pb_dtype type, pb_dtype residual_type, const uint16_t *work, const void *residual, int64_t n,
                     float *x) {
    job j = {
        .type = type, .residual_type = residual_type, .x = x, .work = (uint16_t *)work, .residual = (void *)residual};
    pb_parallel_for(n, GRAIN, join_range, &j);
}
