// test: links=cuda,cpu,ref,base with=ops/support_*.c timeout=600
// Every op on a GPU against the CPU backend on the same inputs: all storage dtypes, all subsets of optional inputs,
// each optional output absent, in place, as a CUDA graph; equal bits in every run, and the CPU's bits where they are
// promised. Arguments lie between guard bytes. Skipped without a GPU.
#include <stdlib.h>

#include "check.h"
#include "kernels/cuda/cuda_attention_op.h"
#include "ops/support_harness.h"
#include "support_gpu.h"

enum { ALIGNMENT = 256, GUARD = 256, GUARD_BYTE = 0xA5 };

static gpu card;
static unsigned char *mirror;  // of the slab

typedef struct setting {
    pb_opcode op;
    const op_case *c;
    pb_dtype dtype;
    unsigned dropped;  // bit i: input i is absent
} setting;

typedef struct range {
    uint64_t begin, bytes;
} range;

static uint64_t place(uint64_t *used, uint64_t bytes) {
    const uint64_t at = *used;
    *used = (at + bytes + GUARD + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return at;
}

static bool guards_stand(const range *ranges, int count, uint64_t used) {
    uint64_t at = 0;
    for (int i = 0; i < count; i++) {  // ascending
        for (; at < ranges[i].begin; at++)
            if (mirror[at] != GUARD_BYTE) return false;
        at = ranges[i].begin + ranges[i].bytes;
    }
    for (; at < used; at++)
        if (mirror[at] != GUARD_BYTE) return false;
    return true;
}

// By a launch, or as a CUDA graph, which has to be possible for every op.
static pb_status run_on_card(pb_opcode op, const pb_kernel_args *args, bool as_graph) {
    const pb_device_calls *calls = card.backend->device;
    pb_captured *captured = NULL;
    if (!as_graph) {
        PB_RETURN_IF(calls->run(card.device, PB_LANE_COMPUTE, op, args));
        return calls->synchronize(card.device);
    }
    PB_RETURN_IF(calls->capture(card.device, 1, &op, &args, &captured));
    pb_status status = calls->replay(card.device, captured);
    if (status == PB_OK) status = calls->synchronize(card.device);
    calls->captured_release(card.device, captured);
    return status;
}

// Runs the op on the GPU, with the run's inputs; its outputs come back. NULL, or what went wrong.
static const char *execute(op_run *run, bool as_graph) {
    static pb_kernel_args args;  // stay valid, as the device wants them
    const pb_device_calls *calls = card.backend->device;
    range ranges[PB_MAX_INPUTS + PB_MAX_OUTPUTS + 1];
    int count = 0;
    uint64_t used = GUARD, in_at[PB_MAX_INPUTS], out_at[PB_MAX_OUTPUTS];
    args = run->args;
    memset(mirror, GUARD_BYTE, card.bytes);
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        if (!args.in[i].data) continue;
        const uint64_t bytes = op_tensor_bytes(&args.in[i]);
        in_at[i] = place(&used, bytes);
        ranges[count++] = (range){in_at[i], bytes};
        if (used > card.bytes) return "the slab is too small for this case";
        memcpy(mirror + in_at[i], args.in[i].data, bytes);
        args.in[i].data = card.slab + in_at[i];
    }
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        if (!args.out[i].data) continue;
        const uint64_t bytes = op_tensor_bytes(&args.out[i]);
        bool aliased = false;
        for (int k = 0; k < PB_MAX_INPUTS && !aliased; k++) {
            aliased = run->args.in[k].data == run->args.out[i].data;
            if (aliased) out_at[i] = in_at[k];
        }
        if (!aliased) {
            out_at[i] = place(&used, bytes);
            ranges[count++] = (range){out_at[i], bytes};
            if (used > card.bytes) return "the slab is too small for this case";
            memset(mirror + out_at[i], 0xff, bytes);
        }
        args.out[i].data = card.slab + out_at[i];
    }
    const pb_kernel_workspace query = card.backend->workspaces[run->op];
    args.workspace_bytes = query ? query(&args) : 0;
    const uint64_t workspace = place(&used, args.workspace_bytes);
    ranges[count++] = (range){workspace, args.workspace_bytes};
    if (used > card.bytes) return "the slab is too small for this case";
    memset(mirror + workspace, 0xff, args.workspace_bytes);
    args.workspace = args.workspace_bytes ? card.slab + workspace : NULL;
    if (calls->write(card.device, card.slab, mirror, used) != PB_OK ||
        calls->prepare(card.device, PB_LANE_COMPUTE, run->op, &args) != PB_OK ||
        run_on_card(run->op, &args, as_graph) != PB_OK || calls->read(card.device, mirror, card.slab, used) != PB_OK)
        return pb_error_message();
    if (!guards_stand(ranges, count, used)) return "it wrote outside of its outputs and scratch";
    for (int i = 0; i < PB_MAX_INPUTS; i++) {
        bool aliased = false;
        for (int k = 0; k < PB_MAX_OUTPUTS; k++)
            aliased = aliased || (run->args.in[i].data && run->args.in[i].data == run->args.out[k].data);
        if (run->args.in[i].data && !aliased &&
            memcmp(mirror + in_at[i], run->args.in[i].data, op_tensor_bytes(&run->args.in[i])) != 0)
            return "it changed an input";
    }
    for (int i = 0; i < PB_MAX_OUTPUTS; i++)
        if (run->args.out[i].data)
            memcpy(run->args.out[i].data, mirror + out_at[i], op_tensor_bytes(&run->args.out[i]));
    return NULL;
}

static void run_init(op_run *run, const setting *s) {
    op_run_init(run, s->op, s->c, s->dtype, pb_backend_reference());
    for (int i = 0; i < PB_MAX_INPUTS; i++)
        if (s->dropped & BIT(i)) op_run_drop_input(run, i);
}

#define SETTING "%s, %s, %s, inputs without %#x, %s: %s"
#define SETTING_OF(s, what) pb_op_name((s)->op), (s)->c->label, pb_dtype_name((s)->dtype), (s)->dropped, (what)

static void check_run(const setting *s, op_run *run, const op_run *expected, const char *what) {
    char why[200] = "";
    const char *fault = execute(run, strstr(what, "graph") != NULL);
    CHECK_THAT(!fault, SETTING, SETTING_OF(s, what), fault);
    if (!fault) CHECK_THAT(op_run_agrees(run, expected, why, sizeof why), SETTING, SETTING_OF(s, what), why);
}

static void check_bits(const setting *s, const op_run *run, const op_run *first, const char *what) {
    CHECK_THAT(op_run_same_bits(run, first), SETTING, SETTING_OF(s, what), "other bits");
}

// What has no sums and no transcendental functions gives the CPU's bits.
static bool has_the_cpus_bits(pb_opcode op) {
    switch (op) {
    case PB_OP_ADAMW:
    case PB_OP_CAST:
    case PB_OP_DECODE8:
    case PB_OP_CONCAT:
    case PB_OP_SLICE:
    case PB_OP_ADD:
    case PB_OP_ACCUMULATE: return true;
    default: return false;
    }
}

static void check_setting(const setting *s) {
    op_run expected, first, second, aliased;
    run_init(&expected, s);
    run_init(&first, s);
    run_init(&second, s);
    run_init(&aliased, s);
    const char *fault = op_run_execute(&expected, pb_backend_cpu());
    CHECK_THAT(!fault, SETTING, SETTING_OF(s, "on the CPU"), fault);
    CHECK_OK(card.backend->supports(s->op, &first.args));
    check_run(s, &first, &expected, "first run");
    if (has_the_cpus_bits(s->op)) check_bits(s, &first, &expected, "against the CPU");
    check_run(s, &second, &expected, "second run, as a graph");
    check_bits(s, &second, &first, "second run, as a graph");
    if (op_run_alias(&aliased)) {
        check_run(s, &aliased, &expected, "in place");
        check_bits(s, &aliased, &first, "in place");
    }
    for (int i = 0; i < PB_MAX_OUTPUTS; i++) {
        if (!(first.spec->optional_out & BIT(i))) continue;
        op_run partial;
        run_init(&partial, s);
        op_run_drop_output(&partial, i);
        check_run(s, &partial, &expected, "an output absent");
        check_bits(s, &partial, &first, "an output absent");
        op_run_deinit(&partial);
    }
    op_run_deinit(&expected);
    op_run_deinit(&first);
    op_run_deinit(&second);
    op_run_deinit(&aliased);
}

static void check_op(pb_opcode op, const char *how) {
    static const pb_dtype dtypes[] = {PB_F32, PB_F16, PB_BF16};
    const op_cases *spec = op_cases_of(op);
    const int failures = check_failures, checks = check_count;
    for (int c = 0; c < spec->count; c++)
        for (int d = 0; d < 3; d++)
            for (unsigned dropped = 0; dropped < BIT(PB_MAX_INPUTS); dropped++)
                if ((dropped & ~spec->optional_in) == 0)
                    check_setting(&(setting){op, &spec->cases[c], dtypes[d], dropped});
    printf("%-20s %6d checks, %d failed%s\n", pb_op_name(op), check_count - checks, check_failures - failures, how);
    fflush(stdout);
}

int main(void) {
    if (!gpu_open(&card, UINT64_C(80) << 20)) return 77;
    mirror = malloc(card.bytes);
    if (!mirror) return 1;
    for (int op = 0; op < PB_OP_COUNT; op++) check_op((pb_opcode)op, "");
    // Small as the cases are, our kernels do them; cuDNN's have to be right as well.
    pb_cuda_attention_choose(PB_CUDA_ATTENTION_CUDNNS);
    check_op(PB_OP_ATTENTION, " by cuDNN");
    check_op(PB_OP_ATTENTION_BWD, " by cuDNN");
    free(mirror);
    gpu_close(&card);
    return CHECK_DONE();
}
