// test: links=train,exec,nn,io,plan,graph,cpu,ref,base
// What `pagebooth eval` refuses, with the tensor's name; and that it writes nothing then. (That it computes what
// diffusers computes: tests/golden/test_modules.c.)
#include "check.h"
#include "scratch.h"
#include "train/evaluate.h"
#include "train/random_model.h"

static float zeros[4 * 16 * 16 * 4];
static int64_t ids[2 * 77];
static const int64_t time_step[1] = {500};

static const pb_safetensors_array sample = {"sample", PB_F32, 4, {1, 4, 8, 8}, zeros};
static const pb_safetensors_array timestep = {"timestep", PB_I64, 1, {1}, time_step};
static const pb_safetensors_array context = {"encoder_hidden_states", PB_F32, 3, {1, 5, 32}, zeros};
static const pb_safetensors_array input_ids = {"input_ids", PB_I64, 2, {2, 77}, ids};

static pb_status evaluate(const pb_model_dir *model, pb_eval_part part, const pb_safetensors_array *arrays, size_t n) {
    CHECK_OK(pb_safetensors_save(scratch_path("in.safetensors"), arrays, n));
    pb_error_clear();
    return pb_evaluate(&(pb_eval_request){.model = model,
                                          .part = part,
                                          .dtype = PB_F32,
                                          .backend = pb_backend_cpu(),
                                          .inputs = scratch_path("in.safetensors"),
                                          .outputs = scratch_path("out.safetensors")});
}

static void check_refused(const pb_model_dir *model, pb_eval_part part, const pb_safetensors_array *arrays, size_t n,
                          const char *named) {
    pb_fs_remove(scratch_path("out.safetensors"));
    const pb_status status = evaluate(model, part, arrays, n);
    const char *message = pb_error_message();
    CHECK_THAT(status == PB_ERR_FORMAT && strstr(message, named) && strstr(message, "in.safetensors"),
               "%s: %d, message: %s", named, status, message);
    CHECK(pb_fs_kind_of(scratch_path("out.safetensors")) == PB_FS_NONE);
}

// A scalar timestep is for all pictures; the result is the same as with one for each.
static void check_scalar_timestep(const pb_model_dir *model) {
    static const int64_t two[2] = {500, 500};
    pb_safetensors_array arrays[] = {sample, timestep, context};
    arrays[0].shape[0] = arrays[2].shape[0] = 2;
    float result[2][2 * 4 * 64];
    for (int run = 0; run < 2; run++) {
        arrays[1] = (pb_safetensors_array){"timestep", PB_I64, run, {2}, run ? two : time_step};
        CHECK_OK(evaluate(model, PB_EVAL_UNET, arrays, 3));
        pb_safetensors *file = NULL;
        CHECK_OK(pb_safetensors_open(scratch_path("out.safetensors"), &file));
        CHECK(file && file->count == 1);
        if (file) CHECK_OK(pb_safetensors_read(file, pb_safetensors_find(file, "output"), PB_F32, result[run]));
        pb_safetensors_close(file);
    }
    CHECK(!memcmp(result[0], result[1], sizeof result[0]) && result[0][0] != 0);
}

int main(void) {
    pb_model_dir *model = NULL;
    CHECK_OK(pb_random_model_write("tiny", 1, PB_F32, scratch_path("model")));
    CHECK_OK(pb_model_dir_open(scratch_path("model"), NULL, &model));
    const pb_safetensors_array good[] = {sample, timestep, context};
    CHECK_OK(evaluate(model, PB_EVAL_UNET, good, 3));
    check_scalar_timestep(model);

    check_refused(model, PB_EVAL_UNET, good, 2, "encoder_hidden_states");
    check_refused(model, PB_EVAL_UNET, good + 1, 2, "sample");
    check_refused(model, PB_EVAL_TEXT_ENCODER, good, 3, "input_ids");
    pb_safetensors_array bad[4] = {sample, timestep, context};
    bad[0].shape[1] = 8;
    bad[0].shape[2] = 4;
    check_refused(model, PB_EVAL_UNET, bad, 3, "sample");  // 8 channels
    bad[0] = sample;
    bad[0].rank = 3;
    check_refused(model, PB_EVAL_UNET, bad, 3, "sample");
    bad[0] = sample;
    bad[0].shape[2] = 0;
    check_refused(model, PB_EVAL_UNET, bad, 3, "sample");  // empty
    bad[0] = sample;
    bad[3] = (pb_safetensors_array){"cotangent", PB_F32, 4, {1, 4, 8, 4}, zeros};
    check_refused(model, PB_EVAL_UNET, bad, 4, "cotangent");
    bad[2].shape[2] = 31;
    check_refused(model, PB_EVAL_UNET, bad, 3, "encoder_hidden_states");

    CHECK_OK(evaluate(model, PB_EVAL_TEXT_ENCODER, &input_ids, 1));
    ids[80] = 514;
    check_refused(model, PB_EVAL_TEXT_ENCODER, &input_ids, 1, "input_ids");
    ids[80] = -1;
    check_refused(model, PB_EVAL_TEXT_ENCODER, &input_ids, 1, "input_ids");
    const pb_safetensors_array long_ids = {"input_ids", PB_I64, 2, {1, 78}, ids};
    check_refused(model, PB_EVAL_TEXT_ENCODER, &long_ids, 1, "input_ids");
    const pb_safetensors_array float_ids = {"input_ids", PB_F32, 2, {1, 77}, zeros};
    check_refused(model, PB_EVAL_TEXT_ENCODER, &float_ids, 1, "input_ids");
    // Batches that differ.
    static const int64_t three[3] = {1, 2, 3};
    const pb_safetensors_array times = {"timestep", PB_I64, 1, {3}, three};
    const pb_safetensors_array contexts = {"encoder_hidden_states", PB_F32, 3, {2, 5, 32}, zeros};
    check_refused(model, PB_EVAL_UNET, (pb_safetensors_array[]){sample, times, context}, 3, "timestep");
    const pb_safetensors_array two[] = {sample, timestep, contexts};
    check_refused(model, PB_EVAL_UNET, two, 3, "encoder_hidden_states");
    // Smaller than what the encoder's three levels can halve.
    const pb_safetensors_array speck = {"sample", PB_F32, 4, {1, 3, 1, 1}, zeros};
    CHECK(evaluate(model, PB_EVAL_VAE_ENCODER, &speck, 1) != PB_OK);
    CHECK(pb_fs_kind_of(scratch_path("out.safetensors")) == PB_FS_NONE);
    pb_model_dir_close(model);
    scratch_remove();
    return CHECK_DONE();
}
