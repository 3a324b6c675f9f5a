// pagebooth bench --memory: a few steps of a training run at a list of device budgets, predicted and measured.
#ifndef PB_CLI_BENCH_MEMORY_H
#define PB_CLI_BENCH_MEMORY_H

#include "cli/options.h"
#include "train/trainer.h"

enum { PB_BENCH_BUDGETS = 16 };

typedef struct pb_bench_memory_options {
    const char *config_path;
    const pb_option_list *sets;
    const char *device;   // like --set device=..., or NULL
    const char *budgets;  // "24GiB,16GiB", or NULL: 24, 16, 12, 8, 6, 4, 2 and 1 GiB
    int64_t steps;        // per budget
    const char *folder;   // for memory.svg and memory.json; NULL: neither
} pb_bench_memory_options;

typedef struct pb_bench_memory_row {
    uint64_t budget;
    bool ran;
    bool same;          // the same losses and gradient norms as the first row that ran, bit for bit
    char refusal[512];  // where it did not run
    pb_train_report report;
} pb_bench_memory_row;

// Errors: those of training; PB_ERR_NUMERIC where two budgets give different numbers; PB_ERR_USAGE.
pb_status pb_bench_memory(const pb_bench_memory_options *options);

// The picture and the data of it (bench_memory_plot.c). Errors: PB_ERR_IO, PB_ERR_MEMORY.
pb_status pb_bench_memory_write_svg(const pb_bench_memory_row *rows, int count, const char *title, const char *path);
pb_status pb_bench_memory_write_json(const pb_bench_memory_row *rows, int count, const char *title, const char *path);

#endif
