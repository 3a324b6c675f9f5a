// pagebooth codec: what a state codec makes of given tensors.
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "io/safetensors.h"
#include "quant/codecs.h"

// One tensor and what was made of it.
typedef struct tensor {
    const pb_safetensors_entry *entry;
    int64_t count;
    float *x, *decoded;
    uint8_t *codes;
    float *scales;
    uint16_t *work;
    void *residual;
} tensor;

typedef struct codec {
    bool blocks, is_signed;
    pb_dtype type, residual_type;
} codec;

static pb_status encode(pb_arena *arena, const pb_safetensors *file, const codec *c, tensor *t) {
    const size_t n = (size_t)t->count, scales = (size_t)pb_block8_scales(t->count);
    t->x = pb_arena_array(arena, n, sizeof *t->x);
    t->decoded = pb_arena_array(arena, n, sizeof *t->decoded);
    if (c->blocks) {
        t->codes = pb_arena_array(arena, n, sizeof *t->codes);
        t->scales = pb_arena_array(arena, scales, sizeof *t->scales);
    } else {
        t->work = pb_arena_array(arena, n, sizeof *t->work);
        t->residual = pb_arena_array(arena, n, pb_dtype_size(c->residual_type));
    }
    if (!t->x || !t->decoded || (c->blocks ? !t->codes || !t->scales : !t->work || !t->residual))
        return pb_error(PB_ERR_MEMORY, "no memory for tensor %s", t->entry->name);
    PB_RETURN_IF(pb_safetensors_read(file, t->entry, PB_F32, t->x));
    if (c->blocks) {
        pb_encode8(c->is_signed, t->x, t->count, t->codes, t->scales);
        pb_decode8(c->is_signed, t->codes, t->scales, t->count, t->decoded);
    } else {
        pb_split_weights(c->type, c->residual_type, t->x, t->count, t->work, t->residual);
        pb_join_weights(c->type, c->residual_type, t->work, t->residual, t->count, t->decoded);
    }
    return PB_OK;
}

// Results are collected first: the file's order is by dtype, not by tensor.
static pb_status add(pb_arena *arena, pb_safetensors_array *array, const tensor *t, const char *suffix, pb_dtype dtype,
                     const void *data) {
    *array = (pb_safetensors_array){.name = pb_arena_format(arena, "%s.%s", t->entry->name, suffix),
                                    .dtype = dtype,
                                    .rank = t->entry->rank,
                                    .data = data};
    memcpy(array->shape, t->entry->shape, sizeof array->shape);
    return array->name ? PB_OK : pb_error(PB_ERR_MEMORY, "no memory for tensor %s", t->entry->name);
}

static pb_status add_results(pb_arena *arena, const codec *c, const tensor *t, pb_safetensors_array arrays[3]) {
    PB_RETURN_IF(add(arena, &arrays[0], t, c->blocks ? "codes" : "work", c->blocks ? PB_U8 : c->type,
                     c->blocks ? (void *)t->codes : t->work));
    PB_RETURN_IF(add(arena, &arrays[1], t, c->blocks ? "scales" : "residual", c->blocks ? PB_F32 : c->residual_type,
                     c->blocks ? (void *)t->scales : t->residual));
    if (c->blocks) {
        arrays[1].rank = 1;
        arrays[1].shape[0] = pb_block8_scales(t->count);
    }
    return add(arena, &arrays[2], t, "decoded", PB_F32, t->decoded);
}

static pb_status run(const codec *c, const char *inputs, const char *outputs) {
    pb_status status = PB_OK;
    pb_safetensors *file = NULL;
    pb_arena *arena = pb_arena_create();
    size_t count = 0;
    if (!arena) PB_FAIL(PB_ERR_MEMORY, "no memory to start with");
    PB_TRY(pb_safetensors_open(inputs, &file));
    pb_safetensors_array *arrays = pb_arena_array(arena, file->count, 3 * sizeof *arrays);
    if (!arrays) PB_FAIL(PB_ERR_MEMORY, "no memory for %zu tensors", file->count);
    for (size_t i = 0; i < file->count; i++) {
        tensor t = {.entry = &file->tensors[i], .count = (int64_t)file->tensors[i].elements};
        if (t.entry->dtype != PB_F32) continue;
        PB_TRY(encode(arena, file, c, &t));
        PB_TRY(add_results(arena, c, &t, arrays + count));
        count += 3;
    }
    if (!count) PB_FAIL(PB_ERR_FORMAT, "%s has no tensor of dtype F32, and no other is encoded", inputs);
    PB_TRY(pb_safetensors_save(outputs, arrays, count));
fail:
    pb_safetensors_close(file);
    pb_arena_destroy(arena);
    return status;
}

pb_status pb_command_codec(int argc, char **argv) {
    const char *codec_text = NULL, *inputs = NULL, *outputs = NULL, *dtype_text = "fp16";
    bool is_signed = false, is_unsigned = false;
    const pb_positional positionals[] = {
        {.name = "CODEC",
         .help = "8bit: blocks of 256, the optimizer's 8-bit states (bitsandbytes' dynamic map).\n"
                 "split16, split8: a 16-bit working weight and a residual of 16 or 8 bits.",
         .text = &codec_text},
    };
    const pb_option options[] = {
        PB_OPTION_TEXT("--inputs", NULL, "FILE", &inputs,
                       "Safetensors whose float32 tensors are encoded; others are passed over."),
        PB_OPTION_TEXT("--outputs", NULL, "FILE", &outputs,
                       "Safetensors to write. Of a tensor NAME, with 8bit: `NAME.codes` (uint8), `NAME.scales`\n"
                       "(float32, one per block; the last block may be short) and `NAME.decoded` (float32);\n"
                       "with a split: `NAME.work`, `NAME.residual` (int16 or int8) and `NAME.decoded`."),
        PB_OPTION_FLAG("--signed", NULL, &is_signed,
                       "8bit: levels of both signs, as for Adam's first moment (default)."),
        PB_OPTION_FLAG("--unsigned", NULL, &is_unsigned, "8bit: levels from 0 on, as for Adam's second moment."),
        PB_OPTION_TEXT("--dtype", NULL, "DTYPE", &dtype_text, "Splits: fp16 or bf16, of the working weight (fp16)."),
    };
    const pb_command_line line = {
        .summary = "Encodes tensors with one of the state codecs, and decodes what came of them.",
        .positionals = positionals,
        .positional_count = PB_COUNT_OF(positionals),
        .options = options,
        .option_count = PB_COUNT_OF(options),
        .epilogue = "Example:\n  pagebooth codec 8bit --unsigned --inputs v.safetensors --outputs v8.safetensors\n",
    };
    bool done = false;
    PB_RETURN_IF(pb_options_parse(&line, argc, argv, &done));
    if (done) return PB_OK;
    if (!inputs || !outputs) return pb_error(PB_ERR_USAGE, "%s is missing", !inputs ? "--inputs" : "--outputs");
    if (is_signed && is_unsigned) return pb_error(PB_ERR_USAGE, "--signed and --unsigned exclude each other");
    static const char *const names[] = {"8bit", "split16", "split8"}, *const dtypes[] = {"fp16", "bf16"};
    int which, dtype;
    PB_RETURN_IF(pb_parse_choice("CODEC", codec_text, names, 3, &which));
    PB_RETURN_IF(pb_parse_choice("--dtype", dtype_text, dtypes, 2, &dtype));
    if (which && (is_signed || is_unsigned))
        return pb_error(PB_ERR_USAGE, "%s is for 8bit, not for %s", is_signed ? "--signed" : "--unsigned", codec_text);
    return run(&(codec){.blocks = which == 0,
                        .is_signed = !is_unsigned,
                        .type = dtype ? PB_BF16 : PB_F16,
                        .residual_type = which == 1 ? PB_I16 : PB_I8},
               inputs, outputs);
}
