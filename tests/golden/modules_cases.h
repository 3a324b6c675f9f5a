// Runs one part of a model as `pagebooth eval` does and holds output and gradients against a file of expected tensors.
#ifndef PB_TESTS_MODULES_CASES_H
#define PB_TESTS_MODULES_CASES_H

#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "train/evaluate.h"

typedef struct tolerance {
    double tensor, total;  // of ||actual - expected|| / ||expected||, for the worst tensor and for all together
} tolerance;

typedef struct sums {
    double error, norm;  // squared
} sums;

// Softmax ignores a bias of the keys: its gradient is rounding noise.
static bool is_noise(const char *name) {
    const char *const ends[] = {"k_proj.bias", "to_k.bias"};
    for (int i = 0; i < 2; i++) {
        const size_t n = strlen(name), k = strlen(ends[i]);
        if (n >= k && !strcmp(name + n - k, ends[i])) return true;
    }
    return false;
}

static double compare_tensor(const pb_safetensors *expected, const pb_safetensors_entry *entry,
                             const pb_safetensors *actual, sums *total) {
    const pb_safetensors_entry *other = pb_safetensors_find(actual, entry->name);
    bool same = other && other->rank == entry->rank && other->dtype == PB_F32;
    for (int i = 0; same && i < entry->rank; i++) same = other->shape[i] == entry->shape[i];
    if (!same) return INFINITY;
    float *x = malloc(entry->elements * sizeof *x), *y = malloc(entry->elements * sizeof *y);
    sums one = {0, 0};
    CHECK(x && y);
    CHECK_OK(pb_safetensors_read(expected, entry, PB_F32, x));
    CHECK_OK(pb_safetensors_read(actual, other, PB_F32, y));
    for (uint64_t i = 0; i < entry->elements; i++) {
        const double difference = (double)y[i] - x[i];
        one.error += difference * difference;
        one.norm += (double)x[i] * x[i];
    }
    free(x);
    free(y);
    total->error += one.error;
    total->norm += one.norm;
    return sqrt(one.error / one.norm);
}

// Compares every `output` and `grad.*` of `expected`; returns the total relative error.
static double compare_files(const char *expected_path, const char *actual_path, tolerance limit) {
    pb_safetensors *expected = NULL, *actual = NULL;
    sums total = {0, 0};
    CHECK_OK(pb_safetensors_open(expected_path, &expected));
    CHECK_OK(pb_safetensors_open(actual_path, &actual));
    for (size_t i = 0; expected && actual && i < expected->count; i++) {
        const pb_safetensors_entry *entry = &expected->tensors[i];
        if (strcmp(entry->name, "output") && strncmp(entry->name, "grad.", 5)) continue;
        if (is_noise(entry->name)) continue;
        const double error = compare_tensor(expected, entry, actual, &total);
        CHECK_THAT(error <= limit.tensor, "%s: %s is off by %.3e", expected_path, entry->name, error);
    }
    pb_safetensors_close(expected);
    pb_safetensors_close(actual);
    const double error = sqrt(total.error / total.norm);
    CHECK_THAT(error <= limit.total, "%s is off by %.3e in total", expected_path, error);
    return error;
}

// `case_name`: the part's name, and what follows in the file's name.
static pb_eval_part part_of(const char *case_name) {
    for (int i = 0; i < PB_EVAL_COUNT; i++)
        if (!strncmp(case_name, pb_eval_part_name((pb_eval_part)i), strlen(pb_eval_part_name((pb_eval_part)i))))
            return (pb_eval_part)i;
    CHECK_THAT(0, "%s names no part", case_name);
    return PB_EVAL_UNET;
}

// Returns the total relative error.
static double run_case(const char *model_path, const char *cases, const char *case_name, const pb_backend *backend,
                       pb_dtype dtype, tolerance limit) {
    char expected[768], actual[] = "/tmp/pagebooth-modules-XXXXXX";
    snprintf(expected, sizeof expected, "%s/%s.safetensors", cases, case_name);
    const int fd = mkstemp(actual);
    CHECK(fd >= 0);
    close(fd);
    pb_model_dir *model = NULL;
    CHECK_OK(pb_model_dir_open(model_path, NULL, &model));
    double error = INFINITY;
    if (model) {
        const pb_status status = pb_evaluate(&(pb_eval_request){.model = model,
                                                                .part = part_of(case_name),
                                                                .dtype = dtype,
                                                                .backend = backend,
                                                                .inputs = expected,
                                                                .outputs = actual});
        CHECK_THAT(status == PB_OK, "%s: %s", expected, pb_error_message());
        if (status == PB_OK) error = compare_files(expected, actual, limit);
    }
    printf("%-9s %-4s %s: %.2e\n", backend->name, pb_dtype_name(dtype), expected, error);
    pb_model_dir_close(model);
    unlink(actual);
    return error;
}

#endif
