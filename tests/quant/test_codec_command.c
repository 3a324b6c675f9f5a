// test: links=cli,train,exec,nn,io,plan,graph,cpu,ref,quant,base
// pagebooth codec: what it writes for a file of tensors, of any shape, and what it refuses. (8-bit results are compared
// with bitsandbytes' own, file against file.)
#include <stdlib.h>

#include "check.h"
#include "cli/commands.h"
#include "io/safetensors.h"
#include "quant/codecs.h"
#include "scratch.h"

#define COMMAND(...) run((char *[]){"codec", __VA_ARGS__, NULL})

static char in[1024], out[1024], no[1024];  // paths; there is nothing at the last one

static pb_status run(char **argv) {
    int argc = 0;
    while (argv[argc]) argc++;
    pb_error_clear();
    return pb_command_codec(argc, argv);
}

static void refused(pb_status status, pb_status expected, const char *part) {
    CHECK_THAT(status == expected && strstr(pb_error_message(), part), "%d, '%s' lacks '%s'", status,
               pb_error_message(), part);
    CHECK(pb_fs_kind_of(no) == PB_FS_NONE);
}

static void *bytes_of(const pb_safetensors *file, const pb_safetensors_entry *entry) {
    void *data = malloc(entry->bytes + 1);
    if (!data) exit(1);
    CHECK_OK(pb_safetensors_read_bytes(file, entry, 0, entry->bytes, data));
    return data;
}

static pb_safetensors *opened(const char *path) {
    pb_safetensors *file = NULL;
    CHECK_OK(pb_safetensors_open(path, &file));
    if (!file) exit(1);
    return file;
}

// Every tensor of the goldens is in the output, with dtype, shape and bytes. (NaNs may differ in their bits.)
static void compare_files(const char *golden_path, const char *path) {
    pb_safetensors *golden = opened(golden_path), *file = opened(path);
    CHECK(golden->count == file->count);
    for (size_t i = 0; i < golden->count; i++) {
        const pb_safetensors_entry *g = &golden->tensors[i], *t = pb_safetensors_find(file, g->name);
        CHECK_THAT(t && t->dtype == g->dtype && t->rank == g->rank &&
                       !memcmp(t->shape, g->shape, (size_t)g->rank * sizeof *g->shape),
                   "%s", g->name);
        if (!t) continue;
        float *a = bytes_of(golden, g), *b = bytes_of(file, t);
        bool equal = !memcmp(a, b, g->bytes);
        if (!equal && g->dtype == PB_F32) {
            equal = true;
            for (uint64_t k = 0; k < g->elements; k++)
                equal &= !memcmp(&a[k], &b[k], sizeof *a) || (a[k] != a[k] && b[k] != b[k]);
        }
        CHECK_THAT(equal, "%s differs", g->name);
        free(a), free(b);
    }
    pb_safetensors_close(golden), pb_safetensors_close(file);
}

static const float values[] = {1, -2.5f, 0.1f, 3e-9f, 70000, 0};
static const int64_t integers[] = {1, 2, 3};
static const pb_safetensors_array some[] = {
    {"a.matrix", PB_F32, 2, {2, 3}, values},
    {"scalar", PB_F32, 0, {0}, values + 1},
    {"empty", PB_F32, 2, {0, 7}, values},
    {"integers", PB_I64, 1, {3}, integers},
};

static const pb_safetensors_entry *find(const pb_safetensors *file, const char *name, pb_dtype dtype, int rank) {
    const pb_safetensors_entry *entry = pb_safetensors_find(file, name);
    CHECK_THAT(entry && entry->dtype == dtype && entry->rank == rank, "%s", name);
    if (!entry) exit(1);
    return entry;
}

static void check_split(char *codec, char *dtype_name, pb_dtype type, pb_dtype residual_type) {
    CHECK_OK(COMMAND(codec, "--dtype", dtype_name, "--inputs", in, "--outputs", out));
    pb_safetensors *file = opened(out);
    CHECK(file->count == 9);
    const pb_safetensors_entry *entry = find(file, "a.matrix.work", type, 2);
    CHECK(entry->shape[0] == 2 && entry->shape[1] == 3);
    uint16_t *work = bytes_of(file, entry);
    void *residual = bytes_of(file, find(file, "a.matrix.residual", residual_type, 2));
    float *decoded = bytes_of(file, find(file, "a.matrix.decoded", PB_F32, 2)), joined[6];
    for (int i = 0; i < 6; i++)
        CHECK(work[i] == (type == PB_BF16 ? pb_bf16_from_f32(values[i]) : pb_f16_from_f32(values[i])));
    pb_codecs_scalar.join(type, residual_type, work, residual, 6, joined);
    CHECK(!memcmp(joined, decoded, sizeof joined));
    if (residual_type == PB_I16 && type == PB_BF16) CHECK(!memcmp(values, decoded, sizeof values));
    find(file, "scalar.work", type, 0);
    CHECK(find(file, "empty.residual", residual_type, 2)->elements == 0);
    free(work), free(residual), free(decoded);
    pb_safetensors_close(file);
}

int main(void) {
    char *golden = PB_TEST_DATA "/golden/quant/inputs.safetensors";
    snprintf(in, sizeof in, "%s", scratch_path("in.safetensors"));
    snprintf(out, sizeof out, "%s", scratch_path("out.safetensors"));
    snprintf(no, sizeof no, "%s", scratch_path("no.safetensors"));
    CHECK_OK(COMMAND("8bit", "--signed", "--inputs", golden, "--outputs", out));
    compare_files(PB_TEST_DATA "/golden/quant/signed.safetensors", out);
    CHECK_OK(COMMAND("8bit", "--inputs", golden, "--outputs", out));
    compare_files(PB_TEST_DATA "/golden/quant/signed.safetensors", out);
    CHECK_OK(COMMAND("8bit", "--unsigned", "--inputs", golden, "--outputs", out));
    compare_files(PB_TEST_DATA "/golden/quant/unsigned.safetensors", out);

    CHECK_OK(pb_safetensors_save(in, some, 4));
    CHECK_OK(COMMAND("8bit", "--inputs", in, "--outputs", out));
    pb_safetensors *file = opened(out);
    CHECK(file->count == 9);
    CHECK(find(file, "a.matrix.scales", PB_F32, 1)->elements == 1 && find(file, "a.matrix.codes", PB_U8, 2));
    CHECK(find(file, "empty.scales", PB_F32, 1)->elements == 0);
    CHECK(find(file, "scalar.scales", PB_F32, 1)->elements == 1);
    pb_safetensors_close(file);
    check_split("split16", "fp16", PB_F16, PB_I16);
    check_split("split16", "bf16", PB_BF16, PB_I16);
    check_split("split8", "fp16", PB_F16, PB_I8);
    check_split("split8", "bf16", PB_BF16, PB_I8);

    refused(COMMAND("8bit", "--outputs", no), PB_ERR_USAGE, "--inputs is missing");
    refused(COMMAND("8bit", "--inputs", in), PB_ERR_USAGE, "--outputs is missing");
    refused(COMMAND("8bits", "--inputs", in, "--outputs", no), PB_ERR_USAGE, "8bit");
    refused(COMMAND("8bit", "--signed", "--unsigned", "--inputs", in, "--outputs", no), PB_ERR_USAGE, "exclude");
    refused(COMMAND("split8", "--unsigned", "--inputs", in, "--outputs", no), PB_ERR_USAGE, "--unsigned is for 8bit");
    refused(COMMAND("split8", "--dtype", "fp32", "--inputs", in, "--outputs", no), PB_ERR_USAGE, "--dtype");
    refused(COMMAND("8bit", "--inputs", no, "--outputs", no), PB_ERR_IO, "no.safetensors");
    CHECK_OK(pb_safetensors_save(in, &some[3], 1));
    refused(COMMAND("8bit", "--inputs", in, "--outputs", no), PB_ERR_FORMAT, "no tensor of dtype F32");
    scratch_remove();
    return CHECK_DONE();
}
