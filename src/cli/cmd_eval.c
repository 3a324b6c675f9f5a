// pagebooth eval: one forward pass of a part on given tensors, and its gradients.
#include "cli/commands.h"
#include "cli/options.h"
#include "exec/executor.h"
#include "exec/select.h"
#include "train/evaluate.h"

pb_status pb_command_eval(int argc, char **argv) {
    const char *path = NULL, *part_text = NULL, *inputs = NULL, *outputs = NULL, *variant = NULL;
    const char *dtype_text = "fp32", *backend_text = "cpu", *device = NULL;
    const pb_positional positionals[] = {
        {.name = "MODEL", .help = "A pipeline directory in diffusers' layout.", .text = &path},
    };
    const pb_option options[] = {
        PB_OPTION_TEXT("--part", NULL, "PART", &part_text, "text_encoder, vae_encoder, vae_decoder or unet."),
        PB_OPTION_TEXT("--inputs", NULL, "FILE", &inputs,
                       "Safetensors with the part's arguments by diffusers' names and in its layouts:\n"
                       "input_ids; sample, timestep, encoder_hidden_states (text_embeds, time_ids).\n"
                       "With `cotangent`, like the output, gradients are computed."),
        PB_OPTION_TEXT("--outputs", NULL, "FILE", &outputs,
                       "Safetensors to write, in fp32: `output`, and the gradients of sum(output x cotangent):\n"
                       "`grad.input.NAME`, `grad.param.NAME` by the names in the model's file."),
        PB_OPTION_TEXT("--dtype", NULL, "DTYPE", &dtype_text, "fp32, fp16 or bf16: what to compute in (fp32)."),
        PB_OPTION_TEXT("--backend", NULL, "BACKEND", &backend_text,
                       "cpu, or reference: scalar loops in double, slow, where --dtype may be fp64 (cpu)."),
        PB_OPTION_TEXT("--device", NULL, "DEVICE", &device, "auto, cpu, cuda or cuda:N, instead of --backend (cpu)."),
        PB_OPTION_TEXT("--variant", NULL, "VARIANT", &variant, "Of the weights' file name: fp16."),
    };
    const pb_command_line line = {
        .summary = "Runs one part of a model on given tensors and writes its output and gradients.",
        .positionals = positionals,
        .positional_count = PB_COUNT_OF(positionals),
        .options = options,
        .option_count = PB_COUNT_OF(options),
        .epilogue = "Example:\n  pagebooth eval MODEL --part unet --inputs in.safetensors --outputs out.safetensors\n",
    };
    bool done = false;
    PB_RETURN_IF(pb_options_parse(&line, argc, argv, &done));
    if (done) return PB_OK;
    if (!part_text || !inputs || !outputs)
        return pb_error(PB_ERR_USAGE, "%s is missing", !part_text ? "--part" : !inputs ? "--inputs" : "--outputs");

    const char *names[PB_EVAL_COUNT];
    for (int i = 0; i < PB_EVAL_COUNT; i++) names[i] = pb_eval_part_name((pb_eval_part)i);
    static const char *const dtype_names[] = {"fp32", "fp16", "bf16", "fp64"}, *const backends[] = {"cpu", "reference"};
    static const pb_dtype dtypes[] = {PB_F32, PB_F16, PB_BF16, PB_F64};
    int part, dtype, backend;
    PB_RETURN_IF(pb_parse_choice("--part", part_text, names, PB_EVAL_COUNT, &part));
    PB_RETURN_IF(pb_parse_choice("--backend", backend_text, backends, 2, &backend));
    PB_RETURN_IF(pb_parse_choice("--dtype", dtype_text, dtype_names, backend == 1 ? 4 : 3, &dtype));

    const pb_backend *computes = backend == 1 ? pb_backend_reference() : pb_backend_cpu();
    if (device && backend == 1) return pb_error(PB_ERR_USAGE, "--backend reference has no --device");
    if (device) PB_RETURN_IF(pb_backend_select(device, &computes));
    pb_executor_captures(false);  // there is one run

    pb_model_dir *model = NULL;
    PB_RETURN_IF(pb_model_dir_open(path, NULL, &model));
    pb_status status = pb_model_dir_require_variant(model, variant);
    if (status == PB_OK)
        status = pb_evaluate(&(pb_eval_request){
            .model = model,
            .part = (pb_eval_part)part,
            .variant = variant,
            .dtype = dtypes[dtype],
            .backend = computes,
            .inputs = inputs,
            .outputs = outputs,
        });
    pb_model_dir_close(model);
    return status;
}
