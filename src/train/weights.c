#include "train/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors_dtype.h"
#include "quant/codecs.h"
#include "train/optimizer_state.h"

enum { CHUNK_ELEMENTS = 1 << 20 };

static bool is_sibling(const pb_module *m, const char *name) {
    for (uint32_t i = 0; i < m->sibling_count; i++)
        if (!strncmp(name, m->siblings[i], strlen(m->siblings[i]))) return true;
    return false;
}

// A model has at most some thousand parameters: a linear search costs nothing beside reading one of them.
static const pb_param *find_param(const pb_module *m, const char *name) {
    for (uint32_t i = 0; i < m->param_count; i++)
        if (!strcmp(m->params[i].name, name)) return &m->params[i];
    return NULL;
}

static pb_status check_param(const pb_param *param, const pb_weights *weights) {
    const pb_weight *weight = pb_weights_find(weights, param->name);
    if (!weight)
        return pb_error(PB_ERR_FORMAT, "%s: the tensor %s is missing; config.json and weights are not of one model",
                        weights->path, param->name);
    if (!pb_safetensors_is_float(weight->entry->dtype))
        return pb_error(
            PB_ERR_UNSUPPORTED,
            "%s: the tensor %s is %s, and weights are read in F32, F16, BF16 and F64; convert the model once, "
            "in Python: from_pretrained(OLD, torch_dtype=torch.float16).save_pretrained(NEW)",
            weight->file->path, weight->entry->name, weight->entry->dtype_name);
    const pb_shape shape = param->file_shape;
    if (pb_weight_has_shape(weight, shape.rank, shape.dim)) return PB_OK;
    char expected[96] = "", actual[160] = "";
    size_t used = 0;
    for (int i = 0; i < shape.rank && used < sizeof expected; i++)
        used +=
            (size_t)snprintf(expected + used, sizeof expected - used, "%s%lld", i ? ", " : "", (long long)shape.dim[i]);
    used = 0;
    for (int i = 0; i < weight->entry->rank && used < sizeof actual; i++)
        used += (size_t)snprintf(actual + used, sizeof actual - used, "%s%lld", i ? ", " : "",
                                 (long long)weight->entry->shape[i]);
    return pb_error(PB_ERR_FORMAT, "%s: the tensor %s has the shape [%s], not [%s] as config.json has it",
                    weight->file->path, weight->entry->name, actual, expected);
}

pb_status pb_weights_check(const pb_module *m, const pb_weights *weights) {
    for (uint32_t i = 0; i < m->param_count; i++) PB_RETURN_IF(check_param(&m->params[i], weights));
    for (size_t i = 0; i < weights->count; i++) {
        const pb_weight *weight = &weights->items[i];
        if (weight->ignored || is_sibling(m, weight->canonical) || find_param(m, weight->canonical)) continue;
        return pb_error(PB_ERR_FORMAT, "%s: the tensor %s has no place in the model that config.json describes",
                        weight->file->path, weight->entry->name);
    }
    return PB_OK;
}

// How a parameter's elements are walked: whole blocks (one output channel of a kernel) at a time.
typedef struct walk {
    pb_dtype dtype;          // of the two buffers: F32, or F64 where the value is
    int64_t inputs, pixels;  // of a kernel that has to be transposed; 1 and 1 otherwise
    int64_t blocks, step;    // blocks in all, blocks that fit the buffers
    void *file, *work;       // as in the file; as in the program
} walk;

static pb_status walk_begin(walk *w, const pb_param *param, pb_dtype value) {
    const pb_shape shape = param->file_shape;
    const bool transpose = param->layout == PB_LAYOUT_OIHW;
    w->dtype = value == PB_F64 ? PB_F64 : PB_F32;
    w->inputs = transpose ? shape.dim[1] : 1;
    w->pixels = transpose ? shape.dim[2] * shape.dim[3] : 1;
    const int64_t block = w->inputs * w->pixels;
    w->blocks = pb_shape_count(shape) / block;
    w->step = block < CHUNK_ELEMENTS ? CHUNK_ELEMENTS / block : 1;
    // Codes are made of whole blocks of theirs.
    int64_t unit = PB_BLOCK8;
    while (unit > 1 && unit / 2 * block % PB_BLOCK8 == 0) unit /= 2;
    w->step = w->step < unit ? unit : w->step / unit * unit;
    if (w->step > w->blocks) w->step = w->blocks;
    const size_t bytes = (size_t)(w->step * block) * pb_dtype_size(w->dtype);
    w->file = malloc(bytes);
    w->work = malloc(bytes);
    if (!w->file || !w->work) return pb_error(PB_ERR_MEMORY, "no memory to convert %s", param->name);
    return PB_OK;
}

static void walk_end(walk *w) {
    free(w->file);
    free(w->work);
}

// to[block][column][row] = from[block][row][column]
#define DEFINE_TRANSPOSE(name, type)                                                              \
    static void name(type *to, const type *from, int64_t blocks, int64_t rows, int64_t columns) { \
        for (int64_t b = 0; b < blocks; b++, to += rows * columns, from += rows * columns)        \
            for (int64_t c = 0; c < columns; c++)                                                 \
                for (int64_t r = 0; r < rows; r++) to[c * rows + r] = from[r * columns + c];      \
    }
DEFINE_TRANSPOSE(transpose_f32, float)
DEFINE_TRANSPOSE(transpose_f64, double)

static void transpose(pb_dtype dtype, void *to, const void *from, int64_t blocks, int64_t rows, int64_t columns) {
    if (rows == 1 || columns == 1)
        memcpy(to, from, (size_t)(blocks * rows * columns) * pb_dtype_size(dtype));
    else if (dtype == PB_F64)
        transpose_f64(to, from, blocks, rows, columns);
    else
        transpose_f32(to, from, blocks, rows, columns);
}

// Writes `count` elements of the walk's program buffer into a value, in the value's dtype.
static pb_status upload(const walk *w, const pb_graph *g, pb_executor *executor, pb_vid value, int64_t first,
                        int64_t count) {
    const pb_dtype dtype = pb_graph_value(g, value)->dtype;
    const uint64_t size = pb_dtype_size(dtype);
    const void *data = w->work;
    if (dtype != w->dtype) {
        pb_convert(dtype, w->file, w->dtype, w->work, (size_t)count);  // what came from the file is used up
        data = w->file;
    }
    return pb_executor_write(executor, value, (uint64_t)first * size, data, (uint64_t)count * size);
}

// What the working weights of `count` elements lack, beside them in the file's buffer, which is used up.
static pb_status upload_residual(const walk *w, const pb_graph *g, pb_executor *executor, const pb_param *param,
                                 int64_t first, int64_t count) {
    const pb_dtype type = pb_graph_value(g, param->work)->dtype, residual = pb_graph_value(g, param->master)->dtype;
    const uint64_t size = pb_dtype_size(residual);
    uint16_t *work = w->file;
    pb_split_weights(type, residual, w->work, count, work, work + count);
    return pb_executor_write(executor, param->master, (uint64_t)first * size, work + count, (uint64_t)count * size);
}

// `count` elements of a split master, joined in the program's buffer.
static pb_status download_split(const walk *w, const pb_graph *g, const pb_executor *executor, const pb_param *param,
                                uint64_t first, uint64_t count) {
    const pb_dtype type = pb_graph_value(g, param->work)->dtype, residual = pb_graph_value(g, param->master)->dtype;
    const uint64_t size = pb_dtype_size(residual);
    uint16_t *work = w->file;
    PB_RETURN_IF(pb_executor_read(executor, param->work, first * sizeof *work, work, count * sizeof *work));
    PB_RETURN_IF(pb_executor_read(executor, param->master, first * size, work + count, count * size));
    pb_join_weights(type, residual, work, work + count, (int64_t)count, w->work);
    return PB_OK;
}

// The codes of `count` elements, which begin with a whole block, and their scales. Made in the file's buffer, which is
// used up.
static pb_status upload_codes(const walk *w, pb_executor *executor, const pb_param *param, int64_t first,
                              int64_t count) {
    const int64_t blocks = pb_block8_scales(count);
    float *scales = w->file;
    uint8_t *codes = (uint8_t *)(scales + blocks);
    pb_encode8(true, w->work, count, codes, scales);
    PB_RETURN_IF(pb_executor_write(executor, param->codes, (uint64_t)first, codes, (uint64_t)count));
    return pb_executor_write(executor, param->scales, (uint64_t)(first / PB_BLOCK8) * sizeof *scales, scales,
                             (uint64_t)blocks * sizeof *scales);
}

static pb_status load_param(const pb_module *m, const pb_param *param, const pb_weight *weight, pb_executor *executor) {
    pb_status status = PB_OK;
    walk w = {0};
    PB_TRY(walk_begin(&w, param, pb_graph_value(m->graph, param->work)->dtype));
    const pb_value *const work = pb_graph_value(m->graph, param->work);
    const bool made_by_updates = !work->persistent && work->class_ != PB_CLASS_INPUT;  // from the master, each step
    const int64_t block = w.inputs * w.pixels;
    for (int64_t b = 0; b < w.blocks; b += w.step) {
        const int64_t blocks = w.blocks - b < w.step ? w.blocks - b : w.step;
        PB_TRY(pb_safetensors_read_range(weight->file, weight->entry, (uint64_t)(b * block), (uint64_t)(blocks * block),
                                         w.dtype, w.file));
        transpose(w.dtype, w.work, w.file, blocks, w.inputs, w.pixels);
        if (param->codes != PB_NONE)
            PB_TRY(upload_codes(&w, executor, param, b * block, blocks * block));
        else if (!made_by_updates)
            PB_TRY(upload(&w, m->graph, executor, param->work, b * block, blocks * block));
        if (pb_optimizer_is_split(m->graph, param))
            PB_TRY(upload_residual(&w, m->graph, executor, param, b * block, blocks * block));
        else if (param->master != PB_NONE && param->master != param->work)
            PB_TRY(upload(&w, m->graph, executor, param->master, b * block, blocks * block));
    }
fail:
    walk_end(&w);
    return status;
}

pb_status pb_weights_load(const pb_module *m, const pb_weights *weights, pb_executor *executor) {
    PB_RETURN_IF(pb_weights_check(m, weights));
    for (uint32_t i = 0; i < m->param_count; i++)
        PB_RETURN_IF(load_param(m, &m->params[i], pb_weights_find(weights, m->params[i].name), executor));
    return PB_OK;
}

pb_status pb_weights_stream(const pb_module *m, const pb_param *param, const pb_executor *executor, pb_vid value,
                            pb_safetensors_writer *writer) {
    pb_status status = PB_OK;
    const pb_dtype dtype = value == PB_NONE ? PB_F32 : pb_graph_value(m->graph, value)->dtype;
    const uint64_t size = pb_dtype_size(dtype);
    const bool split = value != PB_NONE && value == param->master && pb_optimizer_is_split(m->graph, param);
    walk w = {0};
    PB_TRY(walk_begin(&w, param, dtype));
    const int64_t block = w.inputs * w.pixels;
    for (int64_t b = 0; b < w.blocks; b += w.step) {
        const int64_t blocks = w.blocks - b < w.step ? w.blocks - b : w.step;
        const uint64_t first = (uint64_t)(b * block), count = (uint64_t)(blocks * block);
        if (value == PB_NONE) {
            memset(w.work, 0, count * pb_dtype_size(w.dtype));
        } else if (split) {
            PB_TRY(download_split(&w, m->graph, executor, param, first, count));
        } else if (dtype == w.dtype) {
            PB_TRY(pb_executor_read(executor, value, first * size, w.work, count * size));
        } else {
            PB_TRY(pb_executor_read(executor, value, first * size, w.file, count * size));
            pb_convert(w.dtype, w.work, dtype, w.file, count);
        }
        transpose(w.dtype, w.file, w.work, blocks, w.pixels, w.inputs);
        PB_TRY(pb_safetensors_writer_convert(writer, w.dtype, w.file, count));
    }
fail:
    walk_end(&w);
    return status;
}

// --- Files ---

// What a tensor is written as where floating ones are to be `dtype`: F64 and what is no number of ours stays as it is.
static pb_dtype written_as(const pb_safetensors_entry *entry, pb_dtype dtype) {
    const bool floating = entry->dtype == PB_F32 || entry->dtype == PB_F16 || entry->dtype == PB_BF16;
    return floating && dtype != PB_DTYPE_COUNT ? dtype : entry->dtype;
}

// The next tensor of the writer, in the dtype that was declared for it.
static pb_status copy_tensor(const pb_weight *weight, pb_dtype dtype, pb_safetensors_writer *writer) {
    enum { BYTES = 1 << 22 };
    const pb_safetensors_entry *e = weight->entry;
    pb_status status = PB_OK;
    void *buffer = malloc(BYTES);
    if (!buffer) return pb_error(PB_ERR_MEMORY, "no memory to copy %s", e->name);
    for (uint64_t at = 0; dtype == e->dtype && at < e->bytes; at += BYTES) {
        const uint64_t bytes = e->bytes - at < BYTES ? e->bytes - at : BYTES;
        PB_TRY(pb_safetensors_read_bytes(weight->file, e, at, bytes, buffer));
        PB_TRY(pb_safetensors_writer_write(writer, buffer, bytes));
    }
    const uint64_t step = BYTES / sizeof(float);
    for (uint64_t at = 0; dtype != e->dtype && at < e->elements; at += step) {
        const uint64_t count = e->elements - at < step ? e->elements - at : step;
        PB_TRY(pb_safetensors_read_range(weight->file, e, at, count, PB_F32, buffer));
        PB_TRY(pb_safetensors_writer_convert(writer, PB_F32, buffer, count));
    }
fail:
    free(buffer);
    return status;
}

static const pb_weight *find_by_file_name(const pb_weights *weights, const char *name) {
    for (size_t i = 0; i < weights->count; i++)
        if (!strcmp(weights->items[i].entry->name, name)) return &weights->items[i];
    return NULL;
}

static pb_status declare(const pb_safetensors_entry *entry, pb_dtype dtype, pb_safetensors_writer *writer) {
    return dtype == entry->dtype || dtype == PB_DTYPE_COUNT
               ? pb_safetensors_writer_declare_like(writer, entry)
               : pb_safetensors_writer_declare(writer, entry->name, dtype, entry->rank, entry->shape);
}

uint64_t pb_weights_bytes_as(const pb_weights *weights, pb_dtype dtype) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < weights->count; i++) {
        const pb_safetensors_entry *e = weights->items[i].entry;
        const pb_dtype as = written_as(e, dtype);
        bytes += as == e->dtype ? e->bytes : e->elements * pb_dtype_size(as);
    }
    return bytes;
}

pb_status pb_weights_rewrite(const pb_weights *source, pb_dtype dtype, const char *path) {
    pb_status status = PB_OK;
    pb_safetensors_writer *writer = NULL;
    PB_TRY(pb_safetensors_writer_create(&writer));
    for (size_t i = 0; i < source->count; i++)
        PB_TRY(declare(source->items[i].entry, written_as(source->items[i].entry, dtype), writer));
    PB_TRY(pb_safetensors_writer_open(writer, path));
    for (size_t i = 0; i < source->count; i++) {
        const pb_weight *weight = find_by_file_name(source, pb_safetensors_writer_entry(writer, i)->name);
        PB_TRY(copy_tensor(weight, written_as(weight->entry, dtype), writer));
    }
    PB_TRY(pb_safetensors_writer_finish(writer));
fail:
    pb_safetensors_writer_destroy(writer);
    return status;
}

pb_status pb_weights_save(const pb_module *m, const pb_weights *source, const pb_executor *executor, pb_dtype dtype,
                          const char *path) {
    pb_status status = PB_OK;
    pb_safetensors_writer *writer = NULL;
    PB_TRY(pb_weights_check(m, source));
    PB_TRY(pb_safetensors_writer_create(&writer));
    for (size_t i = 0; i < source->count; i++) {
        const bool is_param = find_param(m, source->items[i].canonical) != NULL;
        PB_TRY(declare(source->items[i].entry, is_param ? dtype : source->items[i].entry->dtype, writer));
    }
    PB_TRY(pb_safetensors_writer_open(writer, path));
    for (size_t i = 0; i < source->count; i++) {
        const pb_weight *weight = find_by_file_name(source, pb_safetensors_writer_entry(writer, i)->name);
        const pb_param *param = find_param(m, weight->canonical);
        if (param) {
            const pb_vid value = param->master == PB_NONE ? param->work : param->master;
            PB_TRY(pb_weights_stream(m, param, executor, value, writer));
        } else {
            PB_TRY(copy_tensor(weight, weight->entry->dtype, writer));
        }
    }
    status = pb_safetensors_writer_finish(writer);
fail:
    pb_safetensors_writer_destroy(writer);
    return status;
}
