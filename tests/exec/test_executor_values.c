// test: links=exec,cpu,ref,plan,graph,offload,base with=plan/support_graphs.c
// Persistent values in pieces, several of them in one extent, written and read between runs in ranges that cross the
// pieces; what nobody has written is zeros; a trace; and programs that leave their memory are refused.
#include <stdlib.h>

#include "check.h"
#include "exec/executor.h"
#include "offload/store.h"
#include "scratch.h"

enum { VALUES = 3, ELEMENTS = 5000, BLOCK = PB_EXTENT_ALIGNMENT, PIECES = 12 };

// Three values of 20,000 bytes, cut into pieces that lie on the device, on the host, and in turn in extents 0 and 1.
typedef struct fixture {
    pb_graph *g;
    pb_vid v[VALUES], x, y;
    pb_program program;
    pb_insn insns[4];
    pb_piece pieces[PIECES];
    uint32_t first_piece[16];
    uint64_t home[16], extents[2];
} fixture;

static void add_piece(fixture *f, uint32_t *count, uint64_t begin, uint64_t bytes, pb_tier tier, uint32_t extent,
                      uint64_t offset) {
    f->pieces[(*count)++] = (pb_piece){begin, bytes, tier, extent, offset};
}

static void set_up(fixture *f) {
    *f = (fixture){0};
    CHECK_OK(pb_graph_create(&f->g));
    for (int i = 0; i < VALUES; i++)
        f->v[i] = pb_graph_add_value(f->g, PB_CLASS_STATE, PB_F32, PB_SHAPE1(ELEMENTS), true, "v%d", i);
    f->x = pb_graph_add_value(f->g, PB_CLASS_INPUT, PB_F32, PB_SHAPE2(4, 8), false, "x");
    f->y = pb_unary(f->g, f->x, PB_UNARY_SILU);
    pb_graph_mark_output(f->g, f->y);
    CHECK_OK(f->g->status);
    uint32_t count = 0;
    for (uint32_t i = 0; i < VALUES; i++) {
        const uint64_t at = 4096 * i;
        f->first_piece[f->v[i]] = count;
        add_piece(f, &count, 0, 4000, PB_TIER_DEVICE, 0, at);
        add_piece(f, &count, 4000, 4096, PB_TIER_NVME, i % 2, at);
        add_piece(f, &count, 8096, 3904, PB_TIER_HOST, 0, at);
        add_piece(f, &count, 12000, 8000, PB_TIER_NVME, 1 - i % 2, 12288 + 8192 * i);
    }
    for (pb_vid v = f->v[VALUES - 1] + 1; v <= f->g->value_count; v++) f->first_piece[v] = count;
    memset(f->home, 0xff, sizeof f->home);
    f->home[f->x] = 16384;
    f->home[f->y] = 20480;
    f->insns[0] = (pb_insn){.kind = PB_INSN_FETCH,
                            .lane = PB_LANE_READ,
                            .from_tier = PB_TIER_NVME,
                            .to_tier = PB_TIER_HOST,
                            .to = 16384,
                            .bytes = 10 * BLOCK};
    f->insns[1] = (pb_insn){.kind = PB_INSN_WAIT, .lane = PB_LANE_WRITE, .on = 0};
    f->insns[2] = (pb_insn){.kind = PB_INSN_EVICT,
                            .lane = PB_LANE_WRITE,
                            .from_tier = PB_TIER_HOST,
                            .to_tier = PB_TIER_NVME,
                            .from = 16384,
                            .bytes = 10 * BLOCK};
    f->insns[3] = (pb_insn){.kind = PB_INSN_RUN, .lane = PB_LANE_COMPUTE};
    for (int i = 0; i < PB_MAX_INPUTS; i++) f->insns[3].in[i].value = PB_NONE;
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) f->insns[3].out[i].value = PB_NONE;
    f->insns[3].in[0] = (pb_operand){f->x, f->home[f->x]};
    f->insns[3].out[0] = (pb_operand){f->y, f->home[f->y]};
    f->extents[0] = f->extents[1] = 10 * BLOCK;
    f->program = (pb_program){.insns = f->insns,
                              .insn_count = 4,
                              .home = f->home,
                              .pieces = f->pieces,
                              .first_piece = f->first_piece,
                              .extent_bytes = f->extents,
                              .extent_count = 2,
                              .tier_bytes = {24576, 16384 + 10 * BLOCK, 20 * BLOCK}};
}

static unsigned char byte_of(int value, uint64_t i) {
    return (unsigned char)(i * 131 + (uint64_t)value * 17 + i / 251);
}

static void write_some(const fixture *f, pb_executor *e, unsigned char (*model)[ELEMENTS * 4], uint64_t *random) {
    unsigned char data[6000];
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    const int value = (int)(*random >> 33) % VALUES;
    const uint64_t bytes = 1 + (*random >> 36) % sizeof data, at = (*random >> 20) % (ELEMENTS * 4 - bytes + 1);
    for (uint64_t i = 0; i < bytes; i++) data[i] = model[value][at + i] = byte_of(value, at + i + *random % 7);
    CHECK_OK(pb_executor_write(e, f->v[value], at, data, bytes));
}

static void check_all(const fixture *f, pb_executor *e, unsigned char (*model)[ELEMENTS * 4]) {
    unsigned char data[ELEMENTS * 4];
    for (int i = 0; i < VALUES; i++) {
        CHECK_OK(pb_executor_read(e, f->v[i], 0, data, 8000));
        CHECK_OK(pb_executor_read(e, f->v[i], 8000, data + 8000, sizeof data - 8000));
        CHECK(!memcmp(data, model[i], sizeof data));
    }
}

static void test_values(void) {
    static unsigned char model[VALUES][ELEMENTS * 4];
    fixture f;
    set_up(&f);
    const pb_program *program = &f.program;
    const pb_memory_options options = {.nvme = scratch_path("store")};
    pb_memory *memory = NULL;
    pb_executor *e = NULL;
    CHECK_OK(pb_memory_create_for(pb_backend_cpu(), &program, 1, &options, &memory));
    CHECK_OK(pb_executor_create(pb_backend_cpu(), f.g, program, memory, &e));
    check_all(&f, e, model);  // zeros
    uint64_t random = 1;
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 20; i++) write_some(&f, e, model, &random);
        if (round % 2) CHECK_OK(pb_executor_run(e));  // reads extent 0 and writes it again
        if (round == 4) CHECK_OK(pb_executor_flush(e));
        check_all(&f, e, model);
    }
    float x[32], y[32];
    pb_insn_times times[4];
    for (int i = 0; i < 32; i++) x[i] = (float)i - 8;
    CHECK_OK(pb_executor_write(e, f.x, 0, x, sizeof x));
    pb_executor_trace(e, times);
    CHECK_OK(pb_executor_run(e));
    CHECK_OK(pb_executor_read(e, f.y, 0, y, sizeof y));
    for (int i = 0; i < 32; i++) CHECK(fabsf(y[i] - x[i] / (1 + expf(-x[i]))) < 1e-5f);
    CHECK(times[1].begin == 0 && times[1].end == 0);
    for (int i = 0; i < 4; i++) CHECK(i == 1 || (times[i].begin > 0 && times[i].end >= times[i].begin));
    CHECK(times[2].begin >= times[0].begin);  // a write is not timed before the read that it waits for
    CHECK(pb_executor_write(e, f.v[0], ELEMENTS * 4 - 1, x, 2) == PB_ERR_INTERNAL);
    CHECK(pb_executor_read(e, f.g->value_count, 0, x, 1) == PB_ERR_INTERNAL);
    CHECK(pb_executor_stress(e, 3) == PB_OK && pb_executor_run(e) == PB_OK);
    check_all(&f, e, model);
    pb_executor_destroy(e);
    pb_memory_destroy(memory);
    pb_graph_destroy(f.g);
}

// A program in which one thing is wrong is refused at creation.
static void test_refusals(void) {
    fixture f;
    set_up(&f);
    const pb_program *program = &f.program;
    const pb_memory_options options = {.nvme = scratch_path("store")};
    pb_memory *memory = NULL;
    pb_executor *e = NULL;
    CHECK_OK(pb_memory_create_for(pb_backend_cpu(), &program, 1, &options, &memory));
    for (int wrong = 0; wrong < 14; wrong++) {
        const fixture before = f;
        switch (wrong) {
        case 0: f.insns[0].to += 512; break;
        case 1: f.insns[0].to = 16384 + BLOCK; break;
        case 2: f.insns[0].extent = 2; break;
        case 3: f.insns[0].lane = PB_LANE_WRITE; break;
        case 4: f.insns[2].bytes = 11 * BLOCK; break;
        case 5: f.insns[1].on = 1; break;
        case 6: f.insns[1].on = 3; break;
        case 7: f.insns[3].node = 1; break;
        case 8: f.insns[3].out[0].offset = 24576 - 127; break;
        case 9: f.insns[3].kind = PB_INSN_UPDATE; break;
        case 10: f.insns[3].lane = PB_LANE_HOST; break;
        case 11: f.pieces[0].offset = UINT64_MAX; break;
        case 12: f.pieces[1].extent = 7; break;
        default: f.program.tier_bytes[PB_TIER_DEVICE]++; break;
        }
        CHECK_THAT(pb_executor_create(pb_backend_cpu(), f.g, program, memory, &e) == PB_ERR_INTERNAL, "wrong: %d",
                   wrong);
        f = before;
    }
    CHECK(pb_executor_create(pb_backend_cpu(), f.g, program, NULL, &e) == PB_ERR_USAGE);
    pb_memory_destroy(memory);
    pb_graph_destroy(f.g);
}

int main(void) {
    test_values();
    test_refusals();
    scratch_remove();
    return CHECK_DONE();
}
