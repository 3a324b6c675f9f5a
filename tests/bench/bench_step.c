// bench: links=train,nn,exec,io,plan,graph,cpu,base
// Seconds per training step of a preset's UNet with random weights, by op: forward, backward, clip, AdamW; one batch.
//
//     bench_step [--preset sd14] [--dtype fp32|bf16|fp16] [--batch 1] [--size 256] [--steps 4]
//                [--device MiB] [--host MiB] [--nvme DIRECTORY] [--lanes]
//
// With a budget that does not hold all of it the step is the one that a training run makes there: its update is made at
// the beginning of the next.
//
// Prints one line of JSON (the median of the steps after the first), with --profile the time of each op, and with
// --lanes how long each lane was at work in the last step.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/parallel.h"
#include "exec/executor.h"
#include "train/architecture.h"
#include "train/trainer_parts.h"

enum { MOST_STEPS = 100 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static const char *option(int argc, char **argv, const char *name, const char *fallback) {
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], name)) return argv[i + 1];
    return fallback;
}

static bool has_flag(int argc, char **argv, const char *name) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], name)) return true;
    return false;
}

// Small random numbers for matrices, ones for a norm's gain: activations stay in range through the whole network.
static pb_status fill(pb_executor *e, const pb_graph *g, pb_vid v, uint64_t *random) {
    const pb_value *value = &g->values[v];
    const bool matrix = value->shape.rank > 1;
    const double size = matrix ? 1.0 / (double)(pb_shape_count(value->shape) / value->shape.dim[0]) : 1.0;
    const bool moment = value->class_ == PB_CLASS_STATE && value->name[strlen(value->name) - 2] != 'r';
    const float bound = moment || value->class_ == PB_CLASS_GRADIENT ? 0 : 1;
    enum { CHUNK = 1 << 16 };
    static unsigned char chunk[CHUNK * 8];
    const size_t bytes = pb_dtype_size(value->dtype);
    const int64_t count = pb_shape_count(value->shape);
    for (int64_t done = 0; done < count;) {
        const int64_t n = count - done < CHUNK ? count - done : CHUNK;
        for (int64_t i = 0; i < n; i++) {
            *random = *random * 6364136223846793005u + 1442695040888963407u;
            const double x = (double)(*random >> 40) / (1 << 23) - 1;
            pb_dtype_store(value->dtype, chunk, (size_t)i, bound * (matrix ? x * 1.7 * __builtin_sqrt(size) : 1));
        }
        PB_RETURN_IF(pb_executor_write(e, v, (uint64_t)done * bytes, chunk, (uint64_t)n * bytes));
        done += n;
    }
    return PB_OK;
}

static pb_status write_inputs(pb_executor *e, const pb_step_graph *s, uint64_t *random) {
    const pb_graph *g = s->graph;
    const pb_vid inputs[] = {s->latents, s->context, s->target};
    for (int i = 0; i < 3; i++) PB_RETURN_IF(fill(e, g, inputs[i], random));
    float hyper[PB_HYPER_COUNT] = {[PB_HYPER_LR] = 1e-6f,
                                   [PB_HYPER_BETA1] = 0.9f,
                                   [PB_HYPER_BETA2] = 0.999f,
                                   [PB_HYPER_EPS] = 1e-8f,
                                   [PB_HYPER_DECAY] = 1 - 1e-8f,
                                   [PB_HYPER_STEP_SIZE] = 1e-5f,
                                   [PB_HYPER_SQRT_BIAS2] = 0.0316f,
                                   [PB_HYPER_INV_LOSS_SCALE] = 1,
                                   [PB_HYPER_MAX_NORM] = 1,
                                   [PB_HYPER_ONE_MINUS_BETA1] = 0.1f,
                                   [PB_HYPER_ONE_MINUS_BETA2] = 0.001f};
    const double zero = 0;
    const float one = 1;
    PB_RETURN_IF(pb_executor_write(e, s->hyper, 0, hyper, sizeof hyper));
    if (s->due_control != PB_NONE) {
        const float control[PB_CONTROL_COUNT] = {[PB_CONTROL_SCALE] = 1};
        PB_RETURN_IF(pb_executor_write(e, s->due_control, 0, control, sizeof control));
        PB_RETURN_IF(pb_executor_write(e, s->due_hyper, 0, hyper, sizeof hyper));
    }
    PB_RETURN_IF(pb_executor_write(e, s->norm, 0, &zero, sizeof zero));
    PB_RETURN_IF(pb_executor_write(e, s->scale, 0, &one, sizeof one));
    for (int64_t n = 0; n < g->values[s->weight].shape.dim[0]; n++) {
        const float timestep = 500;
        PB_RETURN_IF(pb_executor_write(e, s->weight, (uint64_t)n * 4, &one, 4));
        PB_RETURN_IF(pb_executor_write(e, s->timesteps, (uint64_t)n * 4, &timestep, 4));
    }
    return PB_OK;
}

static void print_line(void *context, const char *text) {
    (void)context;
    puts(text);
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static uint64_t mebibytes(const char *text) {
    return text ? strtoull(text, NULL, 10) << 20 : UINT64_MAX;
}

// How long each lane was at work in the last run, and when the last of it ended.
static void print_lanes(const pb_program *p, const pb_insn_times *times) {
    static const char *const names[PB_LANE_COUNT] = {"compute", "upload", "download", "host", "read", "write"};
    for (int lane = 0; lane < PB_LANE_COUNT; lane++) {
        double busy = 0, end = 0, seen = 0;
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < p->insn_count; i++) {
            if (p->insns[i].lane != (pb_lane)lane || p->insns[i].kind == PB_INSN_WAIT) continue;
            // Transfers overlap: time counts once.
            const double from = times[i].begin > seen ? times[i].begin : seen;
            if (times[i].end > from) busy += times[i].end - from;
            if (times[i].end > seen) seen = times[i].end;
            end = seen;
            bytes += p->insns[i].bytes;
        }
        if (busy > 0)
            printf("%-9s %8.3f s at work, ends at %8.3f s, %8.1f MiB\n", names[lane], busy, end,
                   (double)bytes / 0x1p20);
    }
}

int main(int argc, char **argv) {
    const char *preset = option(argc, argv, "--preset", "sd14"), *dtype = option(argc, argv, "--dtype", "fp32");
    const int batch = atoi(option(argc, argv, "--batch", "1")), size = atoi(option(argc, argv, "--size", "256"));
    const int asked = atoi(option(argc, argv, "--steps", "4")), steps = asked < MOST_STEPS ? asked : MOST_STEPS;
    pb_status status = PB_OK;
    pb_architecture architecture;
    pb_programs programs = {.count = 0};
    pb_insn_times *times = NULL;
    pb_arena *arena = pb_arena_create();
    PB_TRY(pb_architecture_preset(arena, preset, &architecture));
    const int latent = size / pb_vae_factor(&architecture.vae);
    const pb_step_request request = {
        .unet = &architecture.unet,
        .batch = batch,
        .latent_h = latent,
        .latent_w = latent,
        .tokens = 77,
        .compute = !strcmp(dtype, "bf16")   ? PB_BF16
                   : !strcmp(dtype, "fp16") ? PB_F16
                                            : PB_F32,
    };
    const pb_batching batching = {.length = batch, .batch = batch, .sides = 1, .accumulation = 1, .pass_images = batch};
    const char *nvme = option(argc, argv, "--nvme", NULL);
    pb_memory_limits limits = {.backend = pb_backend_cpu(), .nvme = nvme};
    PB_TRY(pb_machine_this(&limits.machine));
    limits.request = (pb_plan_request){.budget = {mebibytes(option(argc, argv, "--device", NULL)),
                                                  mebibytes(option(argc, argv, "--host", NULL)), nvme ? UINT64_MAX : 0},
                                       .machine = &limits.machine};
    PB_TRY(pb_programs_compile(&request, &batching, &limits, &programs));
    PB_TRY(pb_programs_start(&programs));
    const pb_step_graph *const step = pb_programs_any(&programs)->step;
    const pb_program *const program = pb_programs_any(&programs)->program;
    pb_executor *const executor = pb_programs_any(&programs)->executor;
    if (has_flag(argc, argv, "--lanes")) {
        times = calloc((size_t)program->insn_count + 1, sizeof *times);
        if (!times) PB_FAIL(PB_ERR_MEMORY, "no memory");
        pb_executor_trace(executor, times);
    }
    uint64_t random = 1;
    for (pb_vid v = 0; v < step->graph->value_count; v++)
        if (step->graph->values[v].persistent && step->graph->values[v].alias == PB_NONE)
            PB_TRY(fill(executor, step->graph, v, &random));
    double seconds[MOST_STEPS] = {0};
    for (int i = 0; i < steps; i++) {
        PB_TRY(write_inputs(executor, step, &random));
        if (i == 1 && has_flag(argc, argv, "--profile")) pb_executor_profile(executor, true);
        const double start = now();
        PB_TRY(pb_executor_run(executor));
        seconds[i] = now() - start;
    }
    pb_executor_profile_print(executor, print_line, NULL);
    if (times) print_lanes(program, times);
    float loss;
    PB_TRY(pb_executor_read(executor, step->loss, 0, &loss, sizeof loss));
    // The first step touches every page for the first time.
    const int counted = steps > 1 ? steps - 1 : 1;
    double *from = steps > 1 ? seconds + 1 : seconds;
    qsort(from, (size_t)counted, sizeof *from, ascending);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    const double flops = pb_graph_flops(step->graph, PB_PHASE_FORWARD) + pb_graph_flops(step->graph, PB_PHASE_BACKWARD);
    printf("{\"what\": \"pagebooth\", \"preset\": \"%s\", \"dtype\": \"%s\", \"batch\": %d, \"size\": %d, \"threads\": "
           "%d, "
           "\"seconds\": %.3f, \"gflops\": %.1f, \"rss_gib\": %.2f, \"slab_gib\": %.2f, \"loss\": %g}\n",
           preset, dtype, batch, size, pb_threads(), from[counted / 2], flops / from[counted / 2] / 1e9,
           (double)usage.ru_maxrss / 0x1p20, (double)program->tier_bytes[PB_TIER_DEVICE] / 0x1p30, (double)loss);
fail:
    if (status != PB_OK) fprintf(stderr, "bench_step: %s\n", pb_error_message());
    pb_programs_deinit(&programs);
    free(times);
    pb_arena_destroy(arena);
    return status != PB_OK;
}
