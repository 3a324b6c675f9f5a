#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/parallel.h"
#include "cli/doctor.h"
#include "base/isa.h"

// The rest of the first line of `path` that begins with `key`, without blanks and a colon before it; "" if none does.
static void read_line(const char *path, const char *key, char *text, size_t bytes) {
    char line[512];
    text[0] = 0;
    FILE *file = fopen(path, "re");
    if (!file) return;
    while (!text[0] && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) != 0) continue;
        const char *value = line + strlen(key);
        value += strspn(value, " \t:");
        snprintf(text, bytes, "%.*s", (int)strcspn(value, "\n"), value);
    }
    fclose(file);
}

static double read_number(const char *path, const char *key) {
    char text[64];
    read_line(path, key, text, sizeof text);
    return strtod(text, NULL);
}

static void look_at_processors(pb_doctor *d) {
    static const char *const levels[] = {"no vector code", "AVX2", "AVX-512"};
    char model[256];
    const pb_isa isa = pb_cpu_isa_best();
    read_line("/proc/cpuinfo", "model name", model, sizeof model);
    pb_doctor_line("processor", "%s", model[0] ? model : "unknown");
    pb_doctor_line("threads", "%d", pb_threads());
    pb_doctor_line("instructions", "%s%s", levels[isa.level], isa.bf16 ? " with bf16 products" : "");
    if (isa.level == PB_ISA_SCALAR)
        pb_doctor_find(d, "The processor has no AVX2, so the CPU backend is some ten times slower than it could be: "
                          "use a processor from 2013 or later (in a virtual machine: pass the host's through).");
}

static void look_at_memory(pb_doctor *d) {
    const double total = read_number("/proc/meminfo", "MemTotal") * 1024;
    const double available = read_number("/proc/meminfo", "MemAvailable") * 1024;
    const double limit = read_number("/sys/fs/cgroup/memory.max", "");
    pb_doctor_line("memory", "%.1f GiB, %.1f GiB of it available", total / 0x1p30, available / 0x1p30);
    if (limit > 0 && limit < total)
        pb_doctor_line("memory limit", "%.1f GiB (this control group's; memory.host has to stay below it)",
                       limit / 0x1p30);
    if (available > 0 && available < 0x1p30)
        pb_doctor_find(d, "Only %.2f GiB of memory are available: close other programs.", available / 0x1p30);
    char huge[64];
    read_line("/sys/kernel/mm/transparent_hugepage/enabled", "", huge, sizeof huge);
    pb_doctor_line("huge pages", "%s", huge[0] ? huge : "unknown");
    if (strstr(huge, "[never]"))
        pb_doctor_find(d, "Transparent huge pages are off, which costs the CPU backend and AdamW on the host some "
                          "speed: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (as root).");
}

static void look_at_limits(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return;
    if (limit.rlim_cur == RLIM_INFINITY)
        pb_doctor_line("locked memory", "no limit");
    else
        pb_doctor_line("locked memory", "at most %.3f GiB (ulimit -l)", (double)limit.rlim_cur / 0x1p30);
}

void pb_doctor_machine(pb_doctor *d) {
    look_at_processors(d);
    look_at_memory(d);
    look_at_limits();
}
