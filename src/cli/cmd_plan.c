// pagebooth plan: what a training step will need, before anything runs. Reads no weights.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "exec/executor.h"
#include "train/architecture.h"

typedef struct plan_result {
    uint64_t parameters;
    double flops_forward, flops_backward;  // of a whole optimizer step
    pb_program *program;                   // of the pass that needs most
    pb_step_graph *step;
} plan_result;

static const char *const class_names[PB_CLASS_COUNT] = {
    [PB_CLASS_INPUT] = "inputs",       [PB_CLASS_WEIGHT] = "weights",         [PB_CLASS_STATE] = "optimizer_state",
    [PB_CLASS_GRADIENT] = "gradients", [PB_CLASS_ACTIVATION] = "activations", [PB_CLASS_WORKSPACE] = "workspace",
};

static void destroy_result(plan_result *r) {
    pb_program_destroy(r->program);
    pb_step_graph_destroy(r->step);
    *r = (plan_result){0};
}

// Compiles one pass and keeps it if it is the largest so far.
static pb_status plan_pass(const pb_step_request *request, uint64_t budget, plan_result *r) {
    pb_step_graph *step;
    PB_RETURN_IF(pb_step_graph_create(request, &step));
    pb_program *program = NULL;
    const pb_status status = pb_compile(step->graph, pb_backend_cpu(), &(pb_plan_request){.budget = {budget}}, &program);
    if (status == PB_OK && (!r->program || program->tier_bytes[PB_TIER_DEVICE] > r->program->tier_bytes[PB_TIER_DEVICE])) {
        destroy_result(r);
        *r = (plan_result){.parameters = pb_step_graph_parameters(step),
                           .program = program,
                           .step = step,
                           .flops_forward = pb_graph_flops(step->graph, PB_PHASE_FORWARD),
                           .flops_backward = pb_graph_flops(step->graph, PB_PHASE_BACKWARD)};
        return PB_OK;
    }
    pb_program_destroy(program);
    pb_step_graph_destroy(step);
    return status;
}

static pb_status plan_step(const pb_config *config, pb_step_request request, plan_result *r) {
    const uint64_t budget = config->memory.device == PB_SIZE_AUTO ? UINT64_MAX : (uint64_t)config->memory.device;
    const int64_t passes = config->gradient_accumulation_steps;
    if (passes == 1) {
        PB_RETURN_IF(plan_pass(&request, budget, r));
    } else {
        request.pass = PB_PASS_FIRST;
        PB_RETURN_IF(plan_pass(&request, budget, r));
        request.pass = PB_PASS_LAST;
        PB_RETURN_IF(plan_pass(&request, budget, r));
    }
    r->flops_forward *= (double)passes;
    r->flops_backward *= (double)passes;
    return PB_OK;
}

static void print_json(const plan_result *r) {
    const pb_program *p = r->program;
    printf("{\"parameters\": %llu, \"flops\": %.0f, \"flops_forward\": %.0f, \"flops_backward\": %.0f,\n",
           (unsigned long long)r->parameters, r->flops_forward + r->flops_backward, r->flops_forward,
           r->flops_backward);
    printf(" \"peak\": {\"device\": %llu, \"host\": 0, \"nvme\": 0},\n \"peak_by_class\": {",
           (unsigned long long)p->tier_bytes[PB_TIER_DEVICE]);
    for (int c = 0; c < PB_CLASS_COUNT; c++)
        printf("\"%s\": %llu, ", class_names[c], (unsigned long long)p->peak_by_class[PB_TIER_DEVICE][c]);
    printf("\"padding\": %llu},\n \"kept_activations\": %llu, \"lower_bound_bytes\": %llu}\n",
           (unsigned long long)p->padding_bytes[PB_TIER_DEVICE], (unsigned long long)p->kept_activations,
           (unsigned long long)p->lower_bound);
}

static void print_row(const char *name, uint64_t bytes) {
    printf("  %-18s %17llu bytes %10.3f GiB\n", name, (unsigned long long)bytes, (double)bytes / 0x1p30);
}

static void print_text(const plan_result *r) {
    const pb_program *p = r->program;
    printf("Trained parameters   %llu\n", (unsigned long long)r->parameters);
    printf("FLOPs per step       %.3f T forward, %.3f T backward\n", r->flops_forward / 1e12, r->flops_backward / 1e12);
    printf("Device memory at the step's peak\n");
    for (int c = 0; c < PB_CLASS_COUNT; c++) print_row(class_names[c], p->peak_by_class[PB_TIER_DEVICE][c]);
    print_row("padding", p->padding_bytes[PB_TIER_DEVICE]);
    print_row("in all", p->tier_bytes[PB_TIER_DEVICE]);
    printf("Activations kept for the backward pass\n");
    print_row("", p->kept_activations);
    printf("No placement could do with less than %.3f GiB.\n", (double)p->lower_bound / 0x1p30);
}

static void print_line(void *context, const char *text) {
    (void)context;
    puts(text);
}

static pb_status read_architecture(pb_arena *arena, const char *preset, const pb_config *config, pb_architecture *a) {
    if (preset) return pb_architecture_preset(arena, preset, a);
    if (!config->pretrained_model_name_or_path)
        return pb_error(PB_ERR_USAGE, "pretrained_model_name_or_path is not set; name a model, or use --preset");
    pb_model_dir *model;
    PB_RETURN_IF(pb_model_dir_open(config->pretrained_model_name_or_path, config->revision, &model));
    const pb_status status = pb_architecture_read(model, a);
    pb_model_dir_close(model);
    return status;
}

pb_status pb_command_plan(int argc, char **argv) {
    const char *config_path = NULL, *preset = NULL;
    bool json = false, program = false, done = false;
    pb_option_list sets = {.count = 0};
    const pb_positional positionals[] = {
        {.name = "CONFIG", .help = "a training configuration", .text = &config_path, .optional = true},
    };
    const pb_option options[] = {
        PB_OPTION_TEXT("--preset", NULL, "NAME", &preset,
                       "plan for tiny, sd14, sd21 or sdxl instead of the configuration's model"),
        PB_OPTION_LIST("--set", NULL, "KEY=VALUE", &sets, "set a key of the configuration; may be repeated"),
        PB_OPTION_FLAG("--json", NULL, &json, "print the plan as JSON, all sizes in bytes"),
        PB_OPTION_FLAG("--program", NULL, &program, "print the step's program as well, one instruction a line"),
    };
    const pb_command_line line = {
        .summary =
            "Compiles a training step and prints what it will need: parameters, FLOPs, and the peak of the memory,\n"
            "class by class. Runs nothing and reads no weights.",
        .positionals = positionals,
        .positional_count = PB_COUNT_OF(positionals),
        .options = options,
        .option_count = PB_COUNT_OF(options),
        .epilogue = "  pagebooth plan --preset sd14 --set train_batch_size=1 --set mixed_precision=fp16\n"
                    "  pagebooth plan my.yaml --set resolution=768\n",
    };
    PB_RETURN_IF(pb_options_parse(&line, argc, argv, &done));
    if (done) return PB_OK;
    if (!config_path && !preset) return pb_error(PB_ERR_USAGE, "plan needs a CONFIG or --preset NAME");

    pb_status status = PB_OK;
    pb_config config;
    pb_architecture architecture;
    pb_step_request request;
    plan_result result = {0};
    pb_arena *arena = pb_arena_create();
    if (!arena) return pb_error(PB_ERR_MEMORY, "no memory for a plan");
    PB_TRY(pb_config_gather(arena, config_path, sets.item, (size_t)sets.count, &config));
    PB_TRY(read_architecture(arena, preset, &config, &architecture));
    PB_TRY(pb_architecture_step(&architecture, &config, &request));
    PB_TRY(plan_step(&config, request, &result));
    if (json)
        print_json(&result);
    else
        print_text(&result);
    if (program) pb_program_print(result.program, result.step->graph, print_line, NULL);
fail:
    destroy_result(&result);
    pb_arena_destroy(arena);
    return status;
}
