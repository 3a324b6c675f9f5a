// pagebooth bench: measures this machine and writes its profile, by which `plan` and `train` then decide.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/parallel.h"
#include "cli/bench_device.h"
#include "cli/bench_machine.h"
#include "cli/bench_memory.h"
#include "cli/bench_nvme.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "exec/select.h"
#include "io/machine_profile.h"
#include "kernels/cuda_report.h"
#include "train/memory_limits.h"

static void print_rate(const char *name, double bytes_per_second) {
    printf("%-34s %8.2f GB/s\n", name, 1e-9 * bytes_per_second);
    fflush(stdout);
}

static void print_op(void *context, const pb_bench_op *op) {
    (void)context;
    if (op->achieved_flops > 0)
        printf("%-22s %s %9.1f GFLOP/s", op->op, op->dtype, 1e-9 * op->achieved_flops);
    else
        printf("%-22s %s %17s", op->op, op->dtype, "");
    printf(" %8.2f GB/s %9.2f ms a step  %3d of %3d shapes, fitted within %.2f\n", 1e-9 * op->achieved_bandwidth,
           1e3 * op->seconds, op->shapes, op->kinds, op->worst);
    fflush(stdout);
}

// "AMD EPYC 9B14, 2 threads"
static void name_machine(pb_machine *machine) {
    char line[256], model[48] = "CPU";
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "model name : %47[^\n]", model) == 1) break;
    if (file) fclose(file);
    snprintf(machine->name, sizeof machine->name, "%s, %d threads", model, pb_threads());
}

// What stands in the profile of a GPU's machine in place of the CPU backend's figures.
static pb_status measure_gpu(pb_arena *arena, const pb_backend *backend, bool quick, pb_machine *guess,
                             pb_machine *machine) {
    const size_t mib = 1 << 20;
    pb_bench_device *device = NULL;
    pb_cuda_gpu gpu;
    PB_RETURN_IF(pb_cuda_card(backend->ordinal, &gpu));
    PB_RETURN_IF(pb_machine_find(arena, gpu.machine[0] ? gpu.machine : "generic", guess));
    snprintf(machine->name, sizeof machine->name, "%.60s", gpu.name);
    machine->device_bytes = gpu.free > PB_GPU_MARGIN ? gpu.free - PB_GPU_MARGIN : 0;
    machine->shared_cores = false;
    PB_RETURN_IF(pb_bench_device_open(backend, &device));
    const pb_status status = pb_bench_device_links(device, (quick ? 64 : 512) * mib, machine);
    pb_bench_device_close(device);
    return status;
}

static pb_status measure(pb_arena *arena, const pb_backend *backend, int resolution, const char *nvme, bool quick,
                         pb_machine *machine) {
    const size_t mib = 1 << 20;
    pb_machine guess;
    PB_RETURN_IF(pb_machine_this(machine));
    guess = *machine;
    name_machine(machine);
    PB_RETURN_IF(pb_bench_copies((quick ? 64 : 256) * mib, machine));
    PB_RETURN_IF(pb_bench_adamw((quick ? 4 : 16) * mib, machine));
    if (backend != pb_backend_cpu()) PB_RETURN_IF(measure_gpu(arena, backend, quick, &guess, machine));
    printf("%s, %.1f GiB of memory free for slabs\n", machine->name, (double)machine->device_bytes / 0x1p30);
    print_rate("copy host to device", machine->upload);
    print_rate("copy device to host", machine->download);
    print_rate("both at once", machine->copy_both);
    print_rate("memory, a triad's streams", machine->dram);
    print_rate("AdamW, 28 bytes a parameter", machine->host_adamw);
    printf("%-34s %8.2f us\n", "overhead of an op", 1e6 * machine->overhead);
    if (nvme) {
        pb_bench_drive drive;
        PB_RETURN_IF(pb_bench_nvme(nvme, (quick ? 256 : 1024) * mib, &drive));
        machine->nvme_read = drive.read;
        machine->nvme_write = drive.write;
        machine->nvme_both = drive.both;
        machine->nvme_processors = drive.processors;
        machine->nvme_bytes = drive.bytes;
        printf("the store in %s, %s\n", nvme,
               drive.direct ? "O_DIRECT" : "through the page cache: not the drive's own speed");
        print_rate("read", drive.read);
        print_rate("write", drive.write);
        print_rate("both at once", drive.both);
        print_rate("for which all processors would do", drive.processors);
    } else {
        machine->nvme_read = machine->nvme_write = machine->nvme_both = machine->nvme_processors = 0;
        machine->nvme_bytes = 0;
    }
    printf("SD 1.4 and its text encoder, one picture of %d x %d\n", resolution, resolution);
    return pb_bench_ops(backend, &guess, resolution, quick, machine, print_op, NULL);
}

// Four digits: measurements have no more.
static void round_to_four(double *value) {
    char text[32];
    snprintf(text, sizeof text, "%.3e", *value);
    *value = strtod(text, NULL);
}

static void round_all(pb_machine *m) {
    double *const values[] = {&m->overhead,  &m->upload,     &m->download,  &m->copy_both,       &m->dram,
                              &m->nvme_read, &m->nvme_write, &m->nvme_both, &m->nvme_processors, &m->host_adamw};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) round_to_four(values[i]);
    for (int op = 0; op < PB_OP_COUNT; op++)
        for (int d = 0; d < PB_SPEED_DTYPES; d++) {
            round_to_four(&m->op[op][d].flops);
            round_to_four(&m->op[op][d].bandwidth);
        }
}

static pb_status write_profile(const char *path, int resolution, bool quick, const pb_machine *machine) {
    char heading[256], day[16] = "";
    const time_t now = time(NULL);
    struct tm date;
    if (gmtime_r(&now, &date)) strftime(day, sizeof day, "%Y-%m-%d", &date);
    snprintf(heading, sizeof heading,
             "# Measured by `pagebooth bench --profile` on %s at %d x %d%s. docs/machines.md explains the keys.\n", day,
             resolution, resolution, quick ? ", in a hurry (--quick)" : "");
    PB_RETURN_IF(pb_machine_profile_write(path, heading, machine));
    printf("written: %s\n", path);
    return PB_OK;
}

pb_status pb_command_bench(int argc, char **argv) {
    const char *profile = NULL, *nvme = NULL, *device = NULL, *resolution_text = "256", *steps_text = "4";
    pb_option_list sets = {.count = 0};
    pb_bench_memory_options memory = {.sets = &sets};
    bool quick = false, done;
    const pb_option options[] = {
        PB_OPTION_TEXT("--profile", NULL, "FILE", &profile, "measure this machine and write its profile (YAML)"),
        PB_OPTION_TEXT("--device", NULL, "DEVICE", &device,
                       "auto, cpu, cuda or cuda:N: what computes (--profile: cpu; --memory: the configuration's)"),
        PB_OPTION_TEXT("--nvme", NULL, "DIR", &nvme,
                       "measure the drive there, too (1 GiB, removed afterwards); without it the profile has no NVMe"),
        PB_OPTION_TEXT("--resolution", NULL, "N", &resolution_text, "of the pictures whose shapes are run (256)"),
        PB_OPTION_FLAG("--quick", NULL, &quick,
                       "fewer and smaller measurements: a few seconds in place of most of a minute"),
        PB_OPTION_TEXT("--memory", NULL, "CONFIG", &memory.config_path,
                       "run a few steps of this training configuration at a list of device budgets and compare\n"
                       "seconds, peaks and bytes moved with what was predicted. Writes no model"),
        PB_OPTION_LIST("--set", NULL, "KEY=VALUE", &sets, "with --memory: set a key of the configuration"),
        PB_OPTION_TEXT("--budgets", NULL, "LIST", &memory.budgets,
                       "with --memory: the budgets, as 24GiB,8GiB,500MiB (24, 16, 12, 8, 6, 4, 2 and 1 GiB)"),
        PB_OPTION_TEXT("--steps", NULL, "N", &steps_text, "with --memory: steps at each budget, from 2 (4)"),
        PB_OPTION_TEXT("--output", "-o", "DIR", &memory.folder,
                       "with --memory: write memory.svg and memory.json there"),
    };
    const pb_command_line line = {
        .summary =
            "Measures this machine, its processors or its GPU: copies, memory, AdamW, the drive, and every op of a "
            "training\n"
            "step on its commonest shapes (--profile); or a training run's memory and speed at several budgets\n"
            "(--memory). The profile is what `plan --machine FILE` and memory.profile predict by. Run it on a quiet\n"
            "machine.",
        .options = options,
        .option_count = PB_COUNT_OF(options),
        .epilogue =
            "  pagebooth bench --profile this.yaml --nvme /mnt/nvme/pagebooth\n"
            "  pagebooth bench --profile gpu.yaml --device cuda --resolution 512 --nvme /mnt/nvme/pagebooth\n"
            "  pagebooth bench --memory my.yaml --budgets 8GiB,4GiB,2GiB --set memory.profile=this.yaml -o plots\n",
    };
    pb_machine machine;
    int64_t resolution;
    PB_RETURN_IF(pb_options_parse(&line, argc, argv, &done));
    if (done) return PB_OK;
    if (memory.config_path) {
        if (profile) return pb_error(PB_ERR_USAGE, "--profile and --memory are two benchmarks; choose one");
        PB_RETURN_IF(pb_parse_int("--steps", steps_text, 2, PB_REPORT_STEPS, &memory.steps));
        memory.device = device;
        return pb_bench_memory(&memory);
    }
    if (!profile)
        return pb_error(PB_ERR_USAGE, "--profile is missing: where shall the profile go? (Or --memory CONFIG.)");
    PB_RETURN_IF(pb_parse_int("--resolution", resolution_text, 64, 2048, &resolution));
    if (resolution % 64)
        return pb_error(PB_ERR_USAGE, "--resolution must be a multiple of 64, not %lld", (long long)resolution);
    const pb_backend *backend = pb_backend_cpu();
    if (device) PB_RETURN_IF(pb_backend_select(device, &backend));
    pb_arena *arena = pb_arena_create();
    if (!arena) return pb_error(PB_ERR_MEMORY, "no memory for a profile");
    const pb_status status = measure(arena, backend, (int)resolution, nvme, quick, &machine);
    pb_arena_destroy(arena);
    PB_RETURN_IF(status);
    round_all(&machine);
    return write_profile(profile, (int)resolution, quick, &machine);
}
