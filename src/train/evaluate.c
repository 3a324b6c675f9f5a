#include "train/evaluate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/transpose.h"
#include "train/weights.h"

enum { MAX_INPUTS = 5 + PB_TIME_IDS, MAX_DIMENSION = 1 << 24 };

typedef struct eval_input {
    const char *name;
    const pb_safetensors_entry *entry;  // NULL where the file lacks it
    int64_t column, columns;  // of the entry's last dimension, where the value is one column; columns 0: all of it
    int64_t repeat;           // a scalar is written so many times; else 1
    pb_vid value, grad;       // grad: PB_NONE where there is none
    bool differentiable;
} eval_input;

typedef struct evaluation {
    const pb_eval_request *request;
    pb_safetensors *file;
    pb_weights *weights;
    pb_graph *graph;
    pb_module *module;
    pb_program *program;
    pb_executor *executor;
    eval_input in[MAX_INPUTS];
    int in_count;
    int64_t vocabulary;
    pb_vid output;
    eval_input *cotangent;  // one of in[], or NULL
    pb_vid *grads;          // of the parameters
} evaluation;

static const struct {
    const char *name;
    pb_part part;
} parts[PB_EVAL_COUNT] = {
    [PB_EVAL_TEXT_ENCODER] = {"text_encoder", PB_PART_TEXT_ENCODER},
    [PB_EVAL_VAE_ENCODER] = {"vae_encoder", PB_PART_VAE},
    [PB_EVAL_VAE_DECODER] = {"vae_decoder", PB_PART_VAE},
    [PB_EVAL_UNET] = {"unet", PB_PART_UNET},
};

const char *pb_eval_part_name(pb_eval_part part) {
    return parts[part].name;
}

// --- Inputs ---

static bool is_integer(const pb_safetensors_entry *entry) {
    return entry->dtype == PB_I32 || entry->dtype == PB_I64;
}

static eval_input *next_input(evaluation *e, const char *name, const pb_safetensors_entry *entry) {
    eval_input *in = &e->in[e->in_count++];
    *in = (eval_input){.name = name, .entry = entry, .repeat = 1, .value = PB_NONE, .grad = PB_NONE};
    return in;
}

// Whether the tensor is there, with `rank` dimensions that are not empty; *shape is its shape. Else graph->status says.
static bool find_tensor(evaluation *e, const char *name, int rank, const pb_safetensors_entry **entry,
                        pb_shape *shape) {
    pb_graph *g = e->graph;
    *entry = pb_safetensors_find(e->file, name);
    if (g->status != PB_OK) return false;
    if (!*entry) {
        g->status = pb_error(PB_ERR_FORMAT, "the tensor `%s` is missing; %s needs it", name,
                             pb_eval_part_name(e->request->part));
        return false;
    }
    bool fits = (*entry)->rank == rank;
    *shape = (pb_shape){.rank = rank};
    for (int i = 0; fits && i < rank; i++) {
        shape->dim[i] = (*entry)->shape[i];
        fits = shape->dim[i] > 0 && shape->dim[i] <= MAX_DIMENSION;
    }
    if (!fits) g->status = pb_error(PB_ERR_FORMAT, "`%s` must have %d dimensions, none of them empty", name, rank);
    return fits;
}

// An input of the graph, fp32; pictures as NHWC.
static eval_input *add_input(evaluation *e, const char *name, int rank) {
    const pb_safetensors_entry *entry;
    pb_shape shape;
    const bool found = find_tensor(e, name, rank, &entry, &shape);
    eval_input *in = next_input(e, name, entry);
    if (!found) return in;
    if (rank == 4) shape = PB_SHAPE4(shape.dim[0], shape.dim[2], shape.dim[3], shape.dim[1]);
    in->value = pb_graph_add_value(e->graph, PB_CLASS_INPUT, PB_F32, shape, false, "%s", name);
    return in;
}

// The same, differentiated and in the compute dtype.
static pb_vid add_float(evaluation *e, const char *name, int rank) {
    eval_input *in = add_input(e, name, rank);
    in->differentiable = true;
    return e->module->compute == PB_F32 ? in->value : pb_cast(e->graph, in->value, e->module->compute);
}

static pb_vid add_ids(evaluation *e) {
    const pb_safetensors_entry *entry;
    pb_shape shape;
    if (!find_tensor(e, "input_ids", 2, &entry, &shape)) return PB_NONE;
    if (!is_integer(entry)) {
        e->graph->status = pb_error(PB_ERR_FORMAT, "`input_ids` is of %s, not of integers", entry->dtype_name);
        return PB_NONE;
    }
    eval_input *in = next_input(e, "input_ids", entry);
    return in->value = pb_graph_add_value(e->graph, PB_CLASS_INPUT, PB_I32, shape, false, "input_ids");
}

// timestep[N], or one for all.
static pb_vid add_timestep(evaluation *e, int64_t batch) {
    const pb_safetensors_entry *entry = pb_safetensors_find(e->file, "timestep");
    if (e->graph->status != PB_OK || !entry || entry->elements != 1) return add_input(e, "timestep", 1)->value;
    eval_input *in = next_input(e, "timestep", entry);
    in->repeat = batch;
    return in->value = pb_graph_add_value(e->graph, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(batch), false, "timestep");
}

// SDXL: text_embeds[N,P] beside the sinusoids of time_ids[N,6].
static pb_vid add_condition(evaluation *e, const pb_unet_config *config) {
    if (!config->addition_input_dim) return PB_NONE;
    const pb_vid pooled = add_float(e, "text_embeds", 2);
    const pb_safetensors_entry *entry;
    pb_shape shape;
    if (!find_tensor(e, "time_ids", 2, &entry, &shape)) return PB_NONE;
    if (shape.dim[1] > PB_TIME_IDS) {
        e->graph->status = pb_error(PB_ERR_FORMAT, "`time_ids` has %lld numbers a picture; at most %d are supported",
                                    (long long)shape.dim[1], PB_TIME_IDS);
        return PB_NONE;
    }
    const int count = (int)shape.dim[1];
    pb_vid ids[PB_TIME_IDS];
    for (int i = 0; i < count; i++) {
        eval_input *in = next_input(e, "time_ids", entry);
        in->column = i;
        in->columns = count;
        ids[i] = in->value =
            pb_graph_add_value(e->graph, PB_CLASS_INPUT, PB_F32, PB_SHAPE1(shape.dim[0]), false, "time_ids.%d", i);
    }
    return pb_unet_added(e->module, config, pooled, ids, count);
}

// --- The graph ---

// Errors of the configuration; what is wrong with the inputs is in graph->status.
static pb_status build_forward(evaluation *e) {
    const pb_model_part_dir *part = &e->request->model->parts[parts[e->request->part].part];
    pb_module *m = e->module;
    pb_vid y = PB_NONE;
    if (e->request->part == PB_EVAL_TEXT_ENCODER) {
        pb_clip_config config;
        PB_RETURN_IF(pb_clip_config_read(part->config, part->config_path, &config));
        e->vocabulary = config.vocabulary;
        y = pb_clip_forward(m, &config, add_ids(e));
    } else if (e->request->part == PB_EVAL_UNET) {
        pb_unet_config config;
        PB_RETURN_IF(pb_unet_config_read(part->config, part->config_path, &config));
        const pb_vid sample = add_float(e, "sample", 4);
        const pb_vid t = add_timestep(e, e->in[0].entry ? e->in[0].entry->shape[0] : 1);
        const pb_vid context = add_float(e, "encoder_hidden_states", 3);
        y = pb_unet_forward(m, &config, sample, t, context, add_condition(e, &config));
    } else {
        pb_vae_config config;
        PB_RETURN_IF(pb_vae_config_read(part->config, part->config_path, &config));
        const pb_vid sample = add_float(e, "sample", 4);
        const bool encode = e->request->part == PB_EVAL_VAE_ENCODER;
        y = encode ? pb_vae_encode(m, &config, sample) : pb_vae_decode(m, &config, sample);
    }
    if (e->graph->status != PB_OK) return PB_OK;
    e->output = m->compute == PB_F32 ? y : pb_cast(e->graph, y, PB_F32);
    pb_graph_mark_output(e->graph, e->output);
    return PB_OK;
}

static pb_status build_backward(evaluation *e) {
    pb_graph *g = e->graph;
    const pb_module *m = e->module;
    PB_RETURN_IF(g->status);
    const pb_shape shape = pb_graph_value(g, e->output)->shape;
    e->cotangent = add_input(e, "cotangent", shape.rank);
    PB_RETURN_IF(g->status);
    if (!pb_shape_equal(pb_graph_value(g, e->cotangent->value)->shape, shape))
        return g->status = pb_error(PB_ERR_FORMAT, "`cotangent` has not the shape of the output");

    const uint32_t count = m->param_count + (uint32_t)e->in_count;
    pb_vid *wanted = pb_arena_array(g->arena, count, sizeof *wanted);
    e->grads = pb_arena_array(g->arena, count, sizeof *e->grads);
    if (!wanted || !e->grads) return pb_error(PB_ERR_MEMORY, "no memory for the gradients of %u parameters", count);
    uint32_t wanted_count = 0;
    for (uint32_t i = 0; i < m->param_count; i++) wanted[wanted_count++] = m->params[i].work;
    for (int i = 0; i < e->in_count; i++)
        if (e->in[i].differentiable) wanted[wanted_count++] = e->in[i].value;
    PB_RETURN_IF(pb_graph_differentiate(g, &e->output, &e->cotangent->value, 1, wanted, e->grads, wanted_count));
    uint32_t next = m->param_count;
    for (int i = 0; i < e->in_count; i++)
        if (e->in[i].differentiable) e->in[i].grad = e->grads[next++];
    for (uint32_t i = 0; i < wanted_count; i++)
        if (e->grads[i] != PB_NONE) pb_graph_mark_output(g, e->grads[i]);
    return pb_graph_recompute(g, 0);
}

// --- Data ---

// All numbers of a tensor as floats.
static pb_status read_floats(const evaluation *e, const pb_safetensors_entry *entry, float *to) {
    if (!is_integer(entry)) return pb_safetensors_read(e->file, entry, PB_F32, to);
    pb_status status = PB_OK;
    void *integers = malloc(entry->bytes);
    if (!integers) return pb_error(PB_ERR_MEMORY, "no memory for %s", entry->name);
    PB_TRY(pb_safetensors_read(e->file, entry, entry->dtype, integers));
    for (uint64_t i = 0; i < entry->elements; i++) to[i] = (float)pb_dtype_load(entry->dtype, integers, i);
fail:
    free(integers);
    return status;
}

static pb_status upload_ids(evaluation *e, const eval_input *in) {
    pb_status status = PB_OK;
    const uint64_t count = in->entry->elements;
    void *integers = malloc(in->entry->bytes);
    int32_t *ids = malloc(count * sizeof *ids);
    if (!integers || !ids) PB_FAIL(PB_ERR_MEMORY, "no memory for %s", in->name);
    PB_TRY(pb_safetensors_read(e->file, in->entry, in->entry->dtype, integers));
    for (uint64_t i = 0; i < count; i++) {
        const double id = pb_dtype_load(in->entry->dtype, integers, i);
        if (!(id >= 0 && id < (double)e->vocabulary))
            PB_FAIL(PB_ERR_FORMAT, "%s: `%s` has the id %.0f; the text encoder's vocabulary ends at %lld",
                    e->file->path, in->name, id, (long long)e->vocabulary - 1);
        ids[i] = (int32_t)id;
    }
    status = pb_executor_write(e->executor, in->value, 0, ids, count * sizeof *ids);
fail:
    free(ids);
    free(integers);
    return status;
}

static pb_status upload(evaluation *e, const eval_input *in) {
    const pb_value *value = pb_graph_value(e->graph, in->value);
    if (value->dtype == PB_I32) return upload_ids(e, in);
    pb_status status = PB_OK;
    const int64_t count = pb_shape_count(value->shape), read = (int64_t)in->entry->elements;
    float *file = malloc((size_t)read * sizeof *file), *ours = malloc((size_t)count * sizeof *ours);
    if (!file || !ours) PB_FAIL(PB_ERR_MEMORY, "no memory for %s", in->name);
    PB_TRY(read_floats(e, in->entry, file));
    if (value->shape.rank == 4) {
        const int64_t n = value->shape.dim[0], c = value->shape.dim[3];
        pb_transpose(ours, file, n, c, count / (n * c));
    } else if (in->columns) {
        for (int64_t i = 0; i < count; i++) ours[i] = file[i * in->columns + in->column];
    } else {
        for (int64_t i = 0; i < count; i++) ours[i] = file[in->repeat > 1 ? 0 : i];
    }
    status = pb_executor_write(e->executor, in->value, 0, ours, (uint64_t)count * sizeof *ours);
fail:
    free(ours);
    free(file);
    return status;
}

// The next tensor of the writer: an output or an input's gradient, pictures as NCHW.
static pb_status download(const evaluation *e, pb_vid v, pb_safetensors_writer *writer) {
    pb_status status = PB_OK;
    const pb_shape shape = pb_graph_value(e->graph, v)->shape;
    const int64_t count = pb_shape_count(shape);
    float *ours = malloc((size_t)count * sizeof *ours), *file = malloc((size_t)count * sizeof *file);
    if (!ours || !file) PB_FAIL(PB_ERR_MEMORY, "no memory for %lld numbers", (long long)count);
    PB_TRY(pb_executor_read(e->executor, v, 0, ours, (uint64_t)count * sizeof *ours));
    if (shape.rank == 4) pb_transpose(file, ours, shape.dim[0], count / (shape.dim[0] * shape.dim[3]), shape.dim[3]);
    status = pb_safetensors_writer_write(writer, shape.rank == 4 ? file : ours, (uint64_t)count * sizeof *ours);
fail:
    free(file);
    free(ours);
    return status;
}

static pb_status declare(pb_safetensors_writer *writer, const char *prefix, const char *name, int rank,
                         const int64_t *shape) {
    char full[512];
    if (snprintf(full, sizeof full, "%s%s", prefix, name) >= (int)sizeof full)
        return pb_error(PB_ERR_FORMAT, "the tensor %s has too long a name", name);
    return pb_safetensors_writer_declare(writer, full, PB_F32, rank, shape);
}

static pb_status write_tensor(const evaluation *e, const char *name, pb_safetensors_writer *writer) {
    if (!strcmp(name, "output")) return download(e, e->output, writer);
    if (!strncmp(name, "grad.input.", 11)) {
        int i = 0;
        while (strcmp(e->in[i].name, name + 11)) i++;
        return download(e, e->in[i].grad, writer);
    }
    const pb_module *m = e->module;
    uint32_t i = 0;
    while (strcmp(pb_weights_find(e->weights, m->params[i].name)->entry->name, name + strlen("grad.param."))) i++;
    return pb_weights_stream(m, &m->params[i], e->executor, e->grads[i], writer);
}

static pb_status write_outputs(const evaluation *e) {
    pb_status status = PB_OK;
    pb_safetensors_writer *writer = NULL;
    const pb_module *m = e->module;
    const pb_shape y = pb_graph_value(e->graph, e->output)->shape;
    const pb_shape shape = y.rank == 4 ? PB_SHAPE4(y.dim[0], y.dim[3], y.dim[1], y.dim[2]) : y;
    PB_TRY(pb_safetensors_writer_create(&writer));
    PB_TRY(declare(writer, "", "output", shape.rank, shape.dim));
    for (int i = 0; i < e->in_count; i++)
        if (e->in[i].grad != PB_NONE)
            PB_TRY(declare(writer, "grad.input.", e->in[i].name, e->in[i].entry->rank, e->in[i].entry->shape));
    for (uint32_t i = 0; e->cotangent && i < m->param_count; i++) {
        const pb_safetensors_entry *entry = pb_weights_find(e->weights, m->params[i].name)->entry;
        PB_TRY(declare(writer, "grad.param.", entry->name, entry->rank, entry->shape));
    }
    PB_TRY(pb_safetensors_writer_open(writer, e->request->outputs));
    for (size_t i = 0; i < pb_safetensors_writer_count(writer); i++)
        PB_TRY(write_tensor(e, pb_safetensors_writer_entry(writer, i)->name, writer));
    status = pb_safetensors_writer_finish(writer);
fail:
    pb_safetensors_writer_destroy(writer);
    return status;
}

pb_status pb_evaluate(const pb_eval_request *request) {
    pb_status status = PB_OK;
    const pb_part part = parts[request->part].part;
    evaluation e = {.request = request};
    PB_TRY(pb_model_dir_require(request->model, part));
    PB_TRY(pb_safetensors_open(request->inputs, &e.file));
    PB_TRY(pb_model_dir_weights(request->model, part, request->variant, &e.weights));
    PB_TRY(pb_graph_create(&e.graph));
    const bool backward = pb_safetensors_find(e.file, "cotangent") != NULL;
    e.module = pb_module_create(e.graph, request->dtype, backward);
    if (!e.module) PB_FAIL(PB_ERR_MEMORY, "no memory for a model's graph");
    PB_TRY(build_forward(&e));
    if (backward) status = build_backward(&e);
    if (e.graph->status != PB_OK) status = pb_error_context(e.graph->status, "%s", request->inputs);
    if (status != PB_OK) goto fail;
    PB_TRY(pb_graph_prune(e.graph));
    PB_TRY(pb_compile(e.graph, request->backend, NULL, &e.program));
    PB_TRY(pb_executor_create(request->backend, e.graph, e.program, NULL, &e.executor));
    PB_TRY(pb_weights_load(e.module, e.weights, e.executor));
    for (int i = 0; i < e.in_count; i++) PB_TRY(upload(&e, &e.in[i]));
    PB_TRY(pb_executor_run(e.executor));
    PB_TRY(write_outputs(&e));
fail:
    pb_executor_destroy(e.executor);
    pb_program_destroy(e.program);
    pb_graph_destroy(e.graph);
    pb_weights_close(e.weights);
    pb_safetensors_close(e.file);
    return status;
}
