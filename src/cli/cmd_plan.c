// pagebooth plan: what a training step will need and how long it will take, before anything runs. Reads no weights.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/plan_report.h"
#include "io/model_dir.h"
#include "train/architecture.h"

typedef struct plan_options {
    const char *config_path, *preset, *machine, *device;
    pb_option_list sets;
    bool json, explain, program, table, formats;
} plan_options;

static void print_line(void *context, const char *text) {
    fprintf(context, "%s\n", text);
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

static pb_status report(const plan_options *o, const pb_plan_subject *s, const pb_memory_limits *limits,
                        const pb_step_plan *plan) {
    pb_plan_row rows[PB_PLAN_ROWS];
    // In JSON for programs the table is only there when it is asked for: it takes eight plans.
    const bool table = o->table || (!o->json && !o->explain && !o->program && !o->formats);
    pb_plan_formats formats;
    if (o->formats) PB_RETURN_IF(pb_plan_formats_make(s, &formats));
    if (o->json) {
        if (table) PB_RETURN_IF(pb_plan_rows(s, rows));
        PB_RETURN_IF(pb_plan_print_json(s, limits, plan, table ? rows : NULL, o->formats ? &formats : NULL, stdout));
    } else {
        pb_plan_print_text(s, limits, plan, stdout);
    }
    if (o->explain) {
        putchar('\n');
        PB_RETURN_IF(pb_plan_explain(limits, plan, stdout));
    }
    if (o->formats && !o->json) {
        putchar('\n');
        pb_plan_print_formats(s, &formats, stdout);
    }
    if (o->program) pb_program_print(plan->program, plan->graph, print_line, stdout);
    if (table && !o->json) {
        fflush(stdout);
        putchar('\n');
        PB_RETURN_IF(pb_plan_rows(s, rows));
        pb_plan_print_rows(rows, stdout);
    }
    return PB_OK;
}

// What does not fit as it is may fit in another format. The error stays the plan's.
static pb_status report_refusal(const plan_options *o, const pb_plan_subject *s) {
    pb_plan_formats formats;
    pb_text text = {0};
    char message[512];
    snprintf(message, sizeof message, "%s", pb_error_message());
    PB_RETURN_IF(pb_plan_formats_make(s, &formats));
    if (o->json) {
        pb_text_append(&text, "{\"fits\": false, ");
        pb_plan_append_formats(&text, &formats);
        pb_text_append(&text, "}\n");
        if (!text.failed) fwrite(text.data, 1, text.bytes, stdout);
        pb_text_deinit(&text);
    } else {
        pb_plan_print_formats(s, &formats, stdout);
    }
    return pb_error(PB_ERR_BUDGET, "%s", message);
}

static pb_status plan_and_report(pb_arena *arena, const plan_options *o) {
    pb_config config;
    pb_architecture architecture;
    pb_step_request request;
    pb_memory_limits limits;
    pb_step_plan plan;
    PB_RETURN_IF(pb_config_gather(arena, o->config_path, o->sets.item, (size_t)o->sets.count, &config));
    if (o->device) config.device = o->device;
    PB_RETURN_IF(pb_config_check_optimizer(&config));
    PB_RETURN_IF(read_architecture(arena, o->preset, &config, &architecture));
    PB_RETURN_IF(pb_architecture_step(&architecture, &config, &request));
    const pb_plan_subject subject = {.arena = arena,
                                     .config = &config,
                                     .request = &request,
                                     .machine = o->machine,
                                     .unlimited = config.memory.device == PB_SIZE_AUTO && !o->machine};
    PB_RETURN_IF(pb_plan_subject_limits(&subject, 0, &limits));
    pb_status status = pb_step_plan_create(&config, &request, &limits, &plan);
    if (status == PB_ERR_BUDGET && o->formats) return report_refusal(o, &subject);
    PB_RETURN_IF(status);
    status = report(o, &subject, &limits, &plan);
    pb_step_plan_deinit(&plan);
    return status;
}

pb_status pb_command_plan(int argc, char **argv) {
    plan_options o = {.json = false};
    bool done = false;
    const pb_positional positionals[] = {
        {.name = "CONFIG", .help = "a training configuration", .text = &o.config_path, .optional = true},
    };
    const pb_option options[] = {
        PB_OPTION_TEXT("--preset", NULL, "NAME", &o.preset,
                       "plan for tiny, medium, sd14, sd21 or sdxl instead of the configuration's model"),
        PB_OPTION_LIST("--set", NULL, "KEY=VALUE", &o.sets, "set a key of the configuration; may be repeated"),
        PB_OPTION_TEXT("--machine", NULL, "NAME|FILE", &o.machine,
                       "plan for another machine: rtx3060, rtx3090, rtx4090, h200, or a profile that bench has\n"
                       "measured. `auto` then takes what that machine has"),
        PB_OPTION_TEXT("--device", NULL, "DEVICE", &o.device,
                       "auto, cpu, cuda or cuda:N: what would compute; like --set device=DEVICE. Without --machine"),
        PB_OPTION_FLAG("--json", NULL, &o.json, "print the plan as JSON, in bytes and seconds"),
        PB_OPTION_FLAG("--explain", NULL, &o.explain, "say in words what was moved and why"),
        PB_OPTION_FLAG("--table", NULL, &o.table,
                       "also plan for device budgets of 24, 16, 12, 8, 6, 4, 2 and 1 GiB (the default without\n"
                       "--json, --explain, --formats and --program)"),
        PB_OPTION_FLAG("--formats", NULL, &o.formats,
                       "also plan for every format of the optimizer's state that the precision allows, in the same\n"
                       "memory: what each would buy. The run itself keeps to the configuration"),
        PB_OPTION_FLAG("--program", NULL, &o.program, "print the step's program as well, one instruction a line"),
    };
    const pb_command_line line = {
        .summary =
            "Compiles a training step and prints what it will need and how long it will take: the peak of every tier\n"
            "of memory, class by class, the bytes that move, the seconds and what bounds them. Runs nothing and reads\n"
            "no weights. Without --machine and with memory.device: auto the device is as large as the step wants.",
        .positionals = positionals,
        .positional_count = PB_COUNT_OF(positionals),
        .options = options,
        .option_count = PB_COUNT_OF(options),
        .epilogue = "  pagebooth plan --preset sd14 --set train_batch_size=1 --set mixed_precision=fp16\n"
                    "  pagebooth plan my.yaml --machine rtx3060 --explain\n"
                    "  pagebooth plan my.yaml --set memory.device=6GiB --formats\n"
                    "  pagebooth plan --preset sdxl --set resolution=1024 --machine rtx4090 --json\n",
    };
    PB_RETURN_IF(pb_options_parse(&line, argc, argv, &done));
    if (done) return PB_OK;
    if (o.device && o.machine)
        return pb_error(PB_ERR_USAGE, "--machine says what computes; --device is for this machine");
    if (!o.config_path && !o.preset) return pb_error(PB_ERR_USAGE, "plan needs a CONFIG or --preset NAME");
    pb_arena *arena = pb_arena_create();
    if (!arena) return pb_error(PB_ERR_MEMORY, "no memory for a plan");
    const pb_status status = plan_and_report(arena, &o);
    pb_arena_destroy(arena);
    return status;
}
