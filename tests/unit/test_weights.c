// test: links=train,exec,nn,io,plan,graph,cpu,ref,base
// A module's parameters into a slab and out again: bytes, names, dtypes; what does not fit is refused by name.
#include "check.h"
#include "scratch.h"
#include "train/weights.h"

// A module with one parameter of every kind, and the executor that holds it.
typedef struct fixture {
    pb_graph *graph;
    pb_module *module;
    pb_program *program;
    pb_executor *executor;
} fixture;

static fixture make_fixture(pb_dtype compute, bool masters) {
    fixture f = {0};
    CHECK_OK(pb_graph_create(&f.graph));
    pb_graph *g = f.graph;
    f.module = pb_module_create(g, compute, false);
    pb_module *m = f.module;
    const pb_vid conv = pb_module_param(m, true, PB_LAYOUT_OIHW, PB_SHAPE4(2, 3, 3, 3), "encoder.conv_in.weight");
    const pb_vid bias = pb_module_param(m, false, PB_LAYOUT_PLAIN, PB_SHAPE1(2), "encoder.conv_in.bias");
    const pb_vid q =
        pb_module_param(m, true, PB_LAYOUT_PLAIN, PB_SHAPE2(2, 2), "encoder.mid_block.attentions.0.to_q.weight");
    const pb_vid one = pb_module_param(m, true, PB_LAYOUT_PLAIN, PB_SHAPE4(4, 2, 1, 1), "quant_conv.weight");
    pb_module_sibling(m, "decoder.");
    if (masters)
        for (uint32_t i = 0; i < f.module->param_count; i++) {
            pb_param *p = &f.module->params[i];
            const pb_shape shape = pb_graph_value(g, p->work)->shape;
            p->master = pb_graph_value(g, p->work)->dtype == PB_F32
                            ? p->work
                            : pb_graph_add_value(g, PB_CLASS_STATE, PB_F32, shape, true, "master");
        }
    const pb_vid x = pb_graph_add_value(g, PB_CLASS_INPUT, compute, PB_SHAPE4(1, 3, 3, 3), false, "x");
    const pb_attr attr = {.conv = {.stride = 1}};
    const pb_vid h = pb_linear(g, pb_conv2d(g, x, conv, bias, PB_NONE, PB_NONE, attr), q, PB_NONE, PB_NONE);
    pb_graph_mark_output(g, pb_linear(g, h, one, PB_NONE, PB_NONE));
    CHECK_OK(pb_compile(g, pb_backend_reference(), NULL, &f.program));
    CHECK_OK(pb_executor_create(pb_backend_reference(), g, f.program, NULL, &f.executor));
    return f;
}

static void drop_fixture(fixture *f) {
    pb_executor_destroy(f->executor);
    pb_program_destroy(f->program);
    pb_graph_destroy(f->graph);
}

// --- A VAE file of an old kind: attention by its former names, and a decoder beside the encoder ---
enum { CONV = 54, TENSORS = 5 };
static float conv_data[CONV], bias_data[2] = {0.1f, -7.25f}, q_data[4] = {1, 2, 3, 4.0009765625f}, one_data[8];
static float decoder[3];

static const pb_safetensors_array file_arrays[TENSORS] = {
    {"encoder.conv_in.weight", PB_F32, 4, {2, 3, 3, 3}, conv_data},
    {"encoder.conv_in.bias", PB_F32, 1, {2}, bias_data},
    {"encoder.mid_block.attentions.0.query.weight", PB_F32, 4, {2, 2, 1, 1}, q_data},
    {"quant_conv.weight", PB_F32, 4, {4, 2, 1, 1}, one_data},
    {"decoder.conv_out.bias", PB_F32, 1, {3}, decoder},
};

static pb_weights *open_arrays(const pb_safetensors_array *arrays, size_t count) {
    pb_weights *weights = NULL;
    const char *path = scratch_path("vae.safetensors");
    CHECK_OK(pb_safetensors_save(path, arrays, count));
    CHECK_OK(pb_weights_open(path, PB_PART_VAE, NULL, &weights));
    return weights;
}

static double read_value(const fixture *f, pb_vid v, uint64_t index) {
    const pb_dtype dtype = pb_graph_value(f->graph, v)->dtype;
    double bytes[1] = {0};
    CHECK_OK(pb_executor_read(f->executor, v, index * pb_dtype_size(dtype), bytes, pb_dtype_size(dtype)));
    return pb_dtype_load(dtype, bytes, 0);
}

// Kernels become O,H,W,I; the working copy is rounded once, the master is exact.
static void check_load(pb_dtype compute, bool masters) {
    fixture f = make_fixture(compute, masters);
    pb_weights *weights = open_arrays(file_arrays, TENSORS);
    CHECK_OK(pb_weights_load(f.module, weights, f.executor));
    const pb_param *conv = &f.module->params[0], *q = &f.module->params[2];
    for (int o = 0; o < 2; o++)
        for (int i = 0; i < 3; i++)
            for (int p = 0; p < 9; p++) {
                const float expected = conv_data[(o * 3 + i) * 9 + p];
                const uint64_t at = (uint64_t)((o * 9 + p) * 3 + i);
                float rounded;
                uint16_t narrow;
                pb_convert(compute == PB_F32 ? PB_F32 : compute, compute == PB_F32 ? (void *)&rounded : (void *)&narrow,
                           PB_F32, &expected, 1);
                if (compute != PB_F32) pb_convert(PB_F32, &rounded, compute, &narrow, 1);
                CHECK(read_value(&f, conv->work, at) == rounded);
                if (masters) CHECK(read_value(&f, conv->master, at) == expected);
            }
    CHECK(read_value(&f, f.module->params[1].work, 1) == -7.25);
    if (masters) CHECK(read_value(&f, q->master, 3) == 4.0009765625);
    pb_weights_close(weights);
    drop_fixture(&f);
}

// What was loaded is saved bit for bit, with the file's names and shapes and the tensors that are not ours.
static void check_save(pb_dtype compute, pb_dtype save, bool exact) {
    fixture f = make_fixture(compute, compute != PB_F32);
    pb_weights *weights = open_arrays(file_arrays, TENSORS);
    CHECK_OK(pb_weights_load(f.module, weights, f.executor));
    const char *path = scratch_path("saved.safetensors");
    CHECK_OK(pb_weights_save(f.module, weights, f.executor, save, path));
    pb_weights_close(weights);
    pb_safetensors *saved = NULL;
    CHECK_OK(pb_safetensors_open(path, &saved));
    CHECK(saved && saved->count == TENSORS);
    for (int i = 0; saved && i < TENSORS; i++) {
        const pb_safetensors_array *array = &file_arrays[i];
        const pb_safetensors_entry *entry = pb_safetensors_find(saved, array->name);
        CHECK_THAT(entry, "%s is not there", array->name);
        if (!entry) continue;
        const bool ours = strncmp(array->name, "decoder.", 8) != 0;
        CHECK(entry->rank == array->rank && entry->dtype == (ours && save != PB_DTYPE_COUNT ? save : PB_F32));
        float data[CONV];
        CHECK_OK(pb_safetensors_read(saved, entry, PB_F32, data));
        const size_t bytes = entry->elements * sizeof *data;
        CHECK_THAT(!exact || !memcmp(data, array->data, bytes), "%s has changed", array->name);
        for (uint64_t k = 0; k < entry->elements; k++)
            CHECK(fabsf(data[k] - ((const float *)array->data)[k]) <= 1e-3f * fabsf(data[k]));
    }
    pb_safetensors_close(saved);
    drop_fixture(&f);
}

static void check_refused(const pb_safetensors_array *arrays, size_t count, const char *named) {
    fixture f = make_fixture(PB_F32, false);
    pb_weights *weights = open_arrays(arrays, count);
    pb_error_clear();
    CHECK(pb_weights_load(f.module, weights, f.executor) == PB_ERR_FORMAT);
    CHECK_THAT(strstr(pb_error_message(), named) && strstr(pb_error_message(), "vae.safetensors"), "message: %s",
               pb_error_message());
    pb_weights_close(weights);
    drop_fixture(&f);
}

int main(void) {
    for (int i = 0; i < CONV; i++) conv_data[i] = (float)i + 1.0f / (float)(i + 3);
    for (int i = 0; i < 8; i++) one_data[i] = (float)(1 << i);
    for (int i = 0; i < 3; i++) decoder[i] = (float)-i;
    check_load(PB_F32, false);
    check_load(PB_F16, true);
    check_load(PB_BF16, true);
    check_save(PB_F32, PB_DTYPE_COUNT, true);
    check_save(PB_F16, PB_DTYPE_COUNT, true);  // from the masters
    check_save(PB_F32, PB_F16, false);

    pb_safetensors_array arrays[TENSORS + 1];
    memcpy(arrays, file_arrays, sizeof file_arrays);
    check_refused(arrays + 1, TENSORS - 1, "encoder.conv_in.weight");  // missing
    arrays[TENSORS] = (pb_safetensors_array){"encoder.conv_in.extra", PB_F32, 1, {3}, decoder};
    check_refused(arrays, TENSORS + 1, "encoder.conv_in.extra");
    arrays[0].shape[1] = 9;
    arrays[0].shape[2] = 1;
    check_refused(arrays, TENSORS, "[2, 9, 1, 3]");
    scratch_remove();
    return CHECK_DONE();
}
