// test: links=train,exec,nn,io,plan,graph,cpu,ref,base
// A pipeline of random weights: whole, readable by our own rooms, the same for the same seed, never over something.
#include "check.h"
#include "scratch.h"
#include "io/model_dir.h"
#include "io/tokenizer.h"
#include "nn/module.h"
#include "train/random_model.h"

static uint64_t part_elements(const pb_model_dir *model, pb_part part, pb_dtype dtype) {
    pb_weights *weights = NULL;
    CHECK_OK(pb_model_dir_require(model, part));
    CHECK_OK(pb_model_dir_weights(model, part, NULL, &weights));
    const uint64_t elements = weights ? weights->elements : 0;
    CHECK(weights && weights->dtype == dtype);
    pb_weights_close(weights);
    return elements;
}

static void check_whole(const char *path, pb_dtype dtype) {
    pb_model_dir *model = NULL;
    CHECK_OK(pb_model_dir_open(path, NULL, &model));
    if (!model) return;
    // As diffusers counts them in the same directory.
    CHECK(part_elements(model, PB_PART_UNET, dtype) == 555380);
    CHECK(part_elements(model, PB_PART_VAE, dtype) == 186711);
    CHECK(part_elements(model, PB_PART_TEXT_ENCODER, dtype) == 44384);
    CHECK(model->parts[PB_PART_SCHEDULER].present);
    pb_tokenizer *tokenizer = NULL;
    CHECK_OK(pb_tokenizer_create(path, &tokenizer));
    if (tokenizer) {
        // What transformers' CLIPTokenizer makes of it: 512 and 513 begin and end, a word's last byte is 256 higher.
        static const int32_t expected[] = {512, 320, 79, 71, 78, 83, 334, 513, 513};
        int32_t ids[9];
        CHECK(pb_tokenizer_size(tokenizer) == 514 && pb_tokenizer_length(tokenizer) == 77);
        CHECK_OK(pb_tokenizer_encode(tokenizer, "a photo", 7, 9, ids));
        CHECK(!memcmp(ids, expected, sizeof ids));
    }
    pb_tokenizer_destroy(tokenizer);
    pb_model_dir_close(model);
}

static bool same_file(const char *a, const char *b) {
    pb_arena *arena = pb_arena_create();
    char *x = NULL, *y = NULL;
    size_t m = 0, n = 1;
    CHECK_OK(pb_fs_read_file(arena, a, 1 << 24, &x, &m));
    CHECK_OK(pb_fs_read_file(arena, b, 1 << 24, &y, &n));
    const bool same = m == n && !memcmp(x, y, m);
    pb_arena_destroy(arena);
    return same;
}

// The scale of PyTorch's default: U(-1/sqrt(n), 1/sqrt(n)) with n inputs, norms at 1 and 0.
static void check_scale(const char *path) {
    pb_safetensors *file = NULL;
    CHECK_OK(pb_safetensors_open(path, &file));
    if (!file) return;
    float data[64 * 64];
    const pb_safetensors_entry *linear = pb_safetensors_find(file, "time_embedding.linear_2.weight");
    CHECK(linear && linear->elements == 64 * 64);
    CHECK_OK(pb_safetensors_read(file, linear, PB_F32, data));
    double squares = 0, largest = 0, sum = 0;
    for (int i = 0; i < 64 * 64; i++) {
        squares += (double)data[i] * data[i];
        sum += data[i];
        largest = fmax(largest, fabs(data[i]));
    }
    CHECK(fabs(sqrt(squares / 4096) * sqrt(3) * 8 - 1) < 0.03 && largest <= 0.125 && fabs(sum / 4096) < 0.005);
    CHECK_OK(pb_safetensors_read(file, pb_safetensors_find(file, "conv_norm_out.weight"), PB_F32, data));
    CHECK(data[0] == 1 && data[15] == 1);
    CHECK_OK(pb_safetensors_read(file, pb_safetensors_find(file, "conv_norm_out.bias"), PB_F32, data));
    CHECK(data[0] == 0 && data[15] == 0);
    pb_safetensors_close(file);
}

int main(void) {
    static const char unet[] = "unet/diffusion_pytorch_model.safetensors";
    char a[1100], b[1100], c[1100];
    CHECK_OK(pb_random_model_write("tiny", 7, PB_F32, scratch_path("a")));
    CHECK_OK(pb_random_model_write("tiny", 7, PB_F32, scratch_path("new/b/")));
    CHECK_OK(pb_random_model_write("tiny", 8, PB_BF16, scratch_path("c")));
    check_whole(scratch_path("a"), PB_F32);
    check_whole(scratch_path("c"), PB_BF16);
    snprintf(a, sizeof a, "%s/%s", scratch_path("a"), unet);
    snprintf(b, sizeof b, "%s/%s", scratch_path("new/b"), unet);
    snprintf(c, sizeof c, "%s/%s", scratch_path("c"), unet);
    check_scale(a);
    CHECK(same_file(a, b) && !same_file(a, c));

    CHECK(pb_random_model_write("tiny", 7, PB_F32, scratch_path("a")) == PB_ERR_IO);
    CHECK(pb_random_model_write("tiny", 7, PB_F32, a) == PB_ERR_IO);
    CHECK(pb_random_model_write("sdxl", 7, PB_F32, scratch_path("d")) == PB_ERR_UNSUPPORTED);
    CHECK(pb_fs_kind_of(scratch_path("d")) == PB_FS_NONE);
    // An empty directory may be filled.
    CHECK_OK(pb_fs_make_directories(scratch_path("e")));
    CHECK_OK(pb_random_model_write("tiny", 7, PB_F16, scratch_path("e")));
    check_whole(scratch_path("e"), PB_F16);
    scratch_remove();
    return CHECK_DONE();
}
