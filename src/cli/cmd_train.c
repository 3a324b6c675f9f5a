#include <stdio.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "io/run_config.h"
#include "train/trainer.h"

pb_status pb_command_train(int argc, char **argv);

static const char epilogue[] =
    "Examples:\n"
    "  pagebooth train configs/my_subject.yaml\n"
    "  pagebooth train configs/my_subject.yaml --set learning_rate=2e-6 --set memory.device=8GiB --check\n\n"
    "SIGINT (Ctrl-C) and SIGTERM finish the step, write a checkpoint and exit with 130; a second one ends at once.\n"
    "With validation_prompt set, pictures of it are made every validation_steps steps, in output_dir/validation.\n"
    "A checkpoint of a run with memory.nvme keeps its swap file instead of a copy of what lies there; with\n"
    "--set checkpoint_format=portable it holds the weights in fp32 by the model's own names. Any run resumes from\n"
    "either.\n"
    "The keys are explained in docs/configuration.md.";

pb_status pb_command_train(int argc, char **argv) {
    const char *path = NULL, *timeline = NULL;
    pb_option_list sets = {0};
    const char *device = NULL;
    bool check = false, done = false;
    const pb_positional positionals[] = {
        {.name = "CONFIG", .help = "The run's configuration, a YAML file.", .text = &path}};
    const pb_option options[] = {
        PB_OPTION_LIST("--set", NULL, "KEY=VALUE", &sets, "Overrides a key of the configuration; may be given often."),
        PB_OPTION_TEXT("--device", NULL, "DEVICE", &device,
                       "auto, cpu, cuda or cuda:N: what computes; like --set device=DEVICE."),
        PB_OPTION_FLAG("--check", NULL, &check,
                       "Read everything but the weights, plan the step, say what was found, stop."),
        PB_OPTION_TEXT("--timeline", NULL, "DIR", &timeline,
                       "Write there what one step looks like, predicted and actual: step.svg, step.json (for\n"
                       "ui.perfetto.dev) and step.txt. The same as memory.timeline."),
    };
    const pb_command_line line = {.summary = "Fine-tunes a Stable Diffusion model on pictures of a subject.",
                                  .positionals = positionals,
                                  .positional_count = PB_COUNT_OF(positionals),
                                  .options = options,
                                  .option_count = PB_COUNT_OF(options),
                                  .epilogue = epilogue};
    PB_RETURN_IF(pb_options_parse(&line, argc, argv, &done));
    if (done) return PB_OK;
    pb_arena *arena = pb_arena_create();
    if (!arena) return pb_error(PB_ERR_MEMORY, "no memory for a configuration");
    pb_config config;
    const pb_status gathered = pb_config_gather(arena, path, sets.item, (size_t)sets.count, &config);
    pb_status status = gathered;
    if (timeline) config.memory.timeline = timeline;
    if (device) config.device = device;
    if (status == PB_OK) status = pb_config_check(&config);
    for (size_t i = 0; status == PB_OK && i < config.note_count; i++) fprintf(stderr, "note: %s.\n", config.notes[i]);
    if (status == PB_OK) status = pb_train(&config, check);
    pb_arena_destroy(arena);
    // From here on a wrong value is the configuration's fault, not the command line's.
    return status == PB_ERR_USAGE && gathered == PB_OK ? PB_ERR_FORMAT : status;
}
