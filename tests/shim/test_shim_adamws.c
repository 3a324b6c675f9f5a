// test: links=shim,base
// Many parameters' AdamW as one launch: the bits of as many launches, for every mixture of formats, sizes and
// alignments, in three orders of threads; and who is not taken together.
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "kernels/cuda/cuda_kernels.h"
#include "ops/support_adamw_states.h"
#include "ops/support_harness.h"
#include "support_shim.h"

enum { MOST = 60, PLACES = 7, ROOM = 1 << 24 };  // places: the gradient, then what adamw writes

typedef struct parameter {
    int64_t count;
    pb_dtype gradient, master, m, v, work;  // work: PB_F64 where there is none
    int skew;                               // elements before it, so that it is not aligned
} parameter;

// One memory for all: who writes beyond its own changes somebody else's.
static _Alignas(256) unsigned char initial[ROOM], one_by_one[ROOM], together[ROOM];
static float hyper[PB_HYPER_COUNT], control[PB_CONTROL_COUNT];
static pb_attr attrs[MOST];
static uint64_t random_state = 3;

static void fill(pb_dtype dtype, unsigned char *to, int64_t count, bool is_square) {
    for (int64_t i = 0; i < count; i++) {
        const double x = op_random(&random_state);
        if (dtype == PB_U8 || dtype == PB_I8 || dtype == PB_I16)
            for (size_t b = 0; b < pb_dtype_size(dtype); b++)
                to[(size_t)i * pb_dtype_size(dtype) + b] = (unsigned char)(127 * (x + 1));
        else
            pb_dtype_store(dtype, to, (size_t)i, is_square ? x * x + 0.01 : x);
    }
}

// The arguments over `memory`, which is filled where it is the initial one. Returns the bytes that they take.
static size_t place(const parameter *p, uint32_t count, unsigned char *memory, pb_kernel_args *args) {
    size_t used = 0;
    for (uint32_t i = 0; i < count; i++, p++) {
        const bool split = p->master == PB_I16 || p->master == PB_I8;
        const pb_dtype dtypes[PLACES] = {p->gradient, p->master, p->m, p->v, p->work, PB_F32, PB_F32};
        attrs[i].adamw.stream = 11 + i;
        attrs[i].adamw.first = i % 3 * 4096;
        args[i] = (pb_kernel_args){.attr = &attrs[i]};
        args[i].in[PB_ADAMW_CONTROL] = (pb_tensor){control, PB_F32, PB_SHAPE1(PB_CONTROL_COUNT)};
        args[i].in[PB_ADAMW_HYPER] = (pb_tensor){hyper, PB_F32, PB_SHAPE1(PB_HYPER_COUNT)};
        for (int k = 0; k < PLACES; k++) {
            if ((k == 4 && p->work == PB_F64) || (k == 5 && p->m != PB_U8) || (k == 6 && p->v != PB_U8)) continue;
            const int64_t n = k < 5 ? p->count : (p->count + PB_STATE_BLOCK - 1) / PB_STATE_BLOCK;
            const size_t size = pb_dtype_size(dtypes[k]);
            unsigned char *at = memory + used + (size_t)p->skew * size;
            const pb_tensor tensor = {at, dtypes[k], PB_SHAPE1(n)};
            used += ((size_t)(n + p->skew) * size + 255) / 256 * 256 + 256;
            CHECK(used <= ROOM);
            if (memory == initial) fill(dtypes[k], at, n, k == 3 || k >= 5);
            if (k == 0)
                args[i].in[PB_ADAMW_GRADIENT] = tensor;
            else
                args[i].out[k - 1] = tensor;
            if (k > 0 && (k != 4 || split)) args[i].in[PB_ADAMW_MASTER + k - 1] = tensor;
        }
    }
    return used;
}

static void check_together(const parameter *p, uint32_t count, const char *what) {
    pb_kernel_args args[MOST];
    const pb_kernel_args *list[MOST];
    for (uint32_t i = 0; i < count; i++) list[i] = &args[i];
    place(p, count, initial, args);
    for (int skip = 0; skip <= 1; skip++) {
        control[PB_CONTROL_SKIP] = (float)skip;
        memcpy(one_by_one, initial, ROOM);
        memcpy(together, initial, ROOM);
        place(p, count, one_by_one, args);
        for (uint32_t i = 0; i < count; i++) CHECK_OK(pb_cuda_adamw(list[i], NULL));
        CHECK(skip || memcmp(one_by_one, initial, ROOM));
        place(p, count, together, args);
        uint32_t launches = 0;
        for (uint32_t at = 0, n; at < count; at += n, launches++) {
            n = pb_cuda_adamws_at_once(list + at, count - at);
            CHECK_THAT(n > 0 && n <= count - at, "%s: %u of %u", what, n, count - at);
            if (!n) return;
            CHECK_OK(pb_cuda_adamws(list + at, n, NULL));
        }
        CHECK_THAT(launches <= 1 + count / PB_CUDA_ADAMWS, "%s: %u launches", what, launches);
        CHECK_THAT(!memcmp(one_by_one, together, ROOM), "%s%s: other bits", what, skip ? ", a skipped step" : "");
    }
}

static parameter random_parameter(bool floats) {
    static const int64_t counts[] = {1, 7, 320, 1280, 2047, 2048, 2049, 8191, 8192, 8193};
    static const pb_dtype storage[] = {PB_F32, PB_F16, PB_BF16, PB_F64}, masters[] = {PB_F32, PB_I16, PB_I8, PB_BF16};
    static const pb_dtype moments[] = {PB_F32, PB_BF16, PB_U8};
#define PICK(array) array[(unsigned)(8 * (op_random(&random_state) + 1) * 997) % (sizeof array / sizeof *array)]
    parameter p = {PICK(counts), storage[0], PB_F32, PB_F32, PB_F32, PICK(storage), 0};
    const pb_dtype gradient = PICK(storage);
    p.gradient = gradient == PB_F64 ? PB_F32 : gradient;
    p.skew = PICK(counts) % 2 ? 0 : p.count % 3 == 0;
    if (floats) return p;
    p.master = PICK(masters);
    p.m = PICK(moments);
    p.v = PICK(moments);
    if (p.master == PB_I16 || p.master == PB_I8) p.work = p.count % 2 ? PB_F16 : PB_BF16;
    if (p.master == PB_BF16) p.work = PB_F64;
    return p;
}

static void check_mixtures(void) {
    static parameter p[MOST];
    for (int turn = 0; turn < 3; turn++) {
        shim_set_order((shim_order)turn, 5);
        for (int i = 0; i < MOST; i++) p[i] = random_parameter(true);
        check_together(p, MOST, "fp32 state");
        for (int i = 0; i < MOST; i++) p[i] = random_parameter(false);
        check_together(p, MOST, "any state");
        for (int i = 0; i < MOST; i++) p[i] = random_parameter(i % 7 != 3);
        check_together(p, 20, "fp32 and other state");
    }
    shim_set_order(SHIM_FORWARD, 0);
    pb_cuda_threads = 64;
    check_together(p, 9, "64 threads");
    pb_cuda_threads = 256;
}

// Who is not taken together: another control, hyper, or step; what lies where another one reads or writes.
static void check_apart(void) {
    parameter p[MOST];
    pb_kernel_args args[MOST];
    const pb_kernel_args *list[MOST];
    for (int i = 0; i < MOST; i++) {
        list[i] = &args[i];
        p[i] = (parameter){300, PB_F16, PB_F32, PB_F32, PB_F32, PB_F16, 0};
    }
    place(p, MOST, together, args);
    CHECK(pb_cuda_adamws_at_once(list, 0) == 0 && pb_cuda_adamws_at_once(list, 1) == 1);
    CHECK(pb_cuda_adamws_at_once(list, MOST) == PB_CUDA_ADAMWS_OF_FLOATS);
    float other[PB_CONTROL_COUNT + PB_HYPER_COUNT];
    for (int slot = PB_ADAMW_CONTROL; slot <= PB_ADAMW_HYPER; slot++) {
        pb_tensor *t = &args[5].in[slot];
        void *const before = t->data;
        t->data = other;
        CHECK(pb_cuda_adamws_at_once(list, MOST) == 5);
        t->data = before;
    }
    // A working copy in the place of an earlier gradient, of its last byte alone, and of what an earlier one writes.
    unsigned char *const places[] = {args[2].in[PB_ADAMW_GRADIENT].data,
                                     (unsigned char *)args[4].in[PB_ADAMW_GRADIENT].data + 599,
                                     args[0].out[PB_ADAMW_NEW_WORK].data, args[3].out[PB_ADAMW_NEW_V].data};
    for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
        pb_tensor *t = &args[5].out[PB_ADAMW_NEW_WORK];
        void *const before = t->data;
        t->data = places[k];
        CHECK_THAT(pb_cuda_adamws_at_once(list, MOST) == 5, "case %zu: taken together", k);
        t->data = before;
    }
    // And a later one that reads what an earlier one writes.
    void *const before = args[6].in[PB_ADAMW_GRADIENT].data;
    args[6].in[PB_ADAMW_GRADIENT].data = args[1].out[PB_ADAMW_NEW_MASTER].data;
    CHECK(pb_cuda_adamws_at_once(list, MOST) == 6);
    args[6].in[PB_ADAMW_GRADIENT].data = (unsigned char *)before;
    // Right behind it is apart.
    args[6].in[PB_ADAMW_GRADIENT].shape = PB_SHAPE1(100);
    args[6].in[PB_ADAMW_GRADIENT].data = (unsigned char *)args[1].out[PB_ADAMW_NEW_MASTER].data + 1200;
    CHECK(pb_cuda_adamws_at_once(list, MOST) == PB_CUDA_ADAMWS_OF_FLOATS);
    // One of another format, and there is room for fewer.
    args[MOST - 1].in[PB_ADAMW_M].dtype = PB_BF16;
    CHECK(pb_cuda_adamws_at_once(list + MOST - 40, 40) == 39);
    args[10].in[PB_ADAMW_M].dtype = PB_BF16;
    CHECK(pb_cuda_adamws_at_once(list, MOST) == PB_CUDA_ADAMWS);
}

int main(void) {
    adamw_scalars_fill(hyper, control);
    check_mixtures();
    check_apart();
    return CHECK_DONE();
}
