// pagebooth init: a pipeline of random weights.
#include <stdio.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "train/random_model.h"

pb_status pb_command_init(int argc, char **argv) {
    const char *path = NULL, *preset_text = NULL, *seed_text = "0", *precision_text = "fp32";
    const pb_positional positionals[] = {{.name = "DIR", .help = "To write; must be new or empty.", .text = &path}};
    const pb_option options[] = {
        PB_OPTION_TEXT("--preset", NULL, "PRESET", &preset_text,
                       "tiny (SD 1.x's structure in a few MB), medium (in half a GB), sd14 or sd21\n"
                       "(the published sizes)."),
        PB_OPTION_TEXT("--seed", NULL, "N", &seed_text, "The same seed gives the same bytes (0)."),
        PB_OPTION_TEXT("--precision", NULL, "DTYPE", &precision_text, "Of the weights: fp32, fp16 or bf16 (fp32)."),
    };
    const pb_command_line line = {
        .summary = "Writes a Stable Diffusion pipeline of random weights in diffusers' layout, for tests and\n"
                   "benchmarks. Its tokenizer knows single bytes only.",
        .positionals = positionals,
        .positional_count = PB_COUNT_OF(positionals),
        .options = options,
        .option_count = PB_COUNT_OF(options),
    };
    bool done = false;
    PB_RETURN_IF(pb_options_parse(&line, argc, argv, &done));
    if (done) return PB_OK;
    if (!preset_text) return pb_error(PB_ERR_USAGE, "--preset is missing");

    static const char *const presets[] = {"tiny", "medium", "sd14", "sd21"};
    static const char *const precisions[] = {"fp32", "fp16", "bf16"};
    static const pb_dtype dtypes[] = {PB_F32, PB_F16, PB_BF16};
    int preset, precision;
    uint64_t seed;
    PB_RETURN_IF(pb_parse_choice("--preset", preset_text, presets, PB_COUNT_OF(presets), &preset));
    PB_RETURN_IF(pb_parse_choice("--precision", precision_text, precisions, PB_COUNT_OF(precisions), &precision));
    PB_RETURN_IF(pb_parse_uint64("--seed", seed_text, &seed));
    PB_RETURN_IF(pb_random_model_write(presets[preset], seed, dtypes[precision], path));
    printf("wrote a random pipeline (%s, %s) to %s\n", presets[preset], precisions[precision], path);
    return PB_OK;
}
