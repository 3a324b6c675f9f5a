#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/doctor.h"
#include "kernels/cuda_report.h"

// Display or compute controllers by NVIDIA on the PCI bus, whether or not a driver knows them.
static int count_cards(void) {
    int count = 0;
    DIR *devices = opendir("/sys/bus/pci/devices");
    if (!devices) return 0;
    for (const struct dirent *e; (e = readdir(devices)) != NULL;) {
        char path[320];
        unsigned vendor = 0, class = 0;
        static const char *const names[] = {"vendor", "class"};
        for (int i = 0; i < 2; i++) {
            snprintf(path, sizeof path, "/sys/bus/pci/devices/%.255s/%s", e->d_name, names[i]);
            FILE *file = fopen(path, "re");
            if (!file) continue;
            if (fscanf(file, "%x", i ? &class : &vendor) != 1) vendor = 0;
            fclose(file);
        }
        count += vendor == 0x10de && class >> 16 == 3;
    }
    closedir(devices);
    return count;
}

static void look_at_gpu(pb_doctor *d, int i, const pb_cuda_gpu *gpu) {
    char label[16];
    snprintf(label, sizeof label, "GPU %d", i);
    if (gpu->problem[0]) {
        pb_doctor_line(label, "%s, not usable", gpu->name[0] ? gpu->name : "unknown");
        pb_doctor_find(d, "GPU %d: %s", i, gpu->problem);
        return;
    }
    d->usable_gpu = true;
    pb_doctor_line(label, "%s, sm_%d, %.1f GiB, %.1f GiB of it free", gpu->name, gpu->capability,
                   (double)gpu->total / 0x1p30, (double)gpu->free / 0x1p30);
    if (gpu->note[0]) pb_doctor_find(d, "GPU %d: %s", i, gpu->note);
    if (gpu->free < gpu->total / 2)
        pb_doctor_find(d, "GPU %d: more than half of its memory is in use by others (nvidia-smi lists them).", i);
}

// A host slab may want most of the memory, and has to be page-locked for copies at the link's speed.
static void look_at_locking(pb_doctor *d) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
    const uint64_t total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (limit.rlim_cur >= total / 2) return;
    pb_doctor_find(d,
                   "Locked memory is limited to %.3f GiB (ulimit -l) where the machine has %.1f GiB. Should CUDA be "
                   "refused to lock a host slab, its copies go through a ring of 32 MiB and are slower: raise memlock "
                   "in /etc/security/limits.conf and log in again.",
                   (double)limit.rlim_cur / 0x1p30, (double)total / 0x1p30);
}

void pb_doctor_gpus(pb_doctor *d) {
    static pb_cuda_report report;
    const int cards = count_cards();
    pb_cuda_report_make(&report);
    if (!report.built) {
        pb_doctor_line("this build", "without CUDA");
        pb_doctor_line("GPU", cards ? "%d by NVIDIA on the bus" : "none by NVIDIA on the bus", cards);
        if (cards)
            pb_doctor_find(d, "This machine has an NVIDIA GPU and this program was built without CUDA: install the "
                              "CUDA toolkit and cuDNN's headers and build it again; cmake says what it found.");
        return;
    }
    pb_doctor_line("this build", "with CUDA %d.%d", report.toolkit / 1000, report.toolkit % 1000 / 10);
    if (report.driver)
        pb_doctor_line("driver", "for CUDA %d.%d", report.driver / 1000, report.driver % 1000 / 10);
    else
        pb_doctor_line("driver", "none");
    for (int i = 0; i < report.gpu_count; i++) look_at_gpu(d, i, &report.gpus[i]);
    if (d->usable_gpu) look_at_locking(d);
    if (report.problem[0]) {
        pb_doctor_line("GPU", cards ? "%d by NVIDIA on the bus, not usable" : "none by NVIDIA on the bus", cards);
        // A machine without a GPU is none the worse for having no driver.
        if (cards || report.driver) pb_doctor_find(d, "%s.", report.problem);
    }
    for (int i = 0; i < 2; i++) {
        const pb_cuda_library *library = &report.libraries[i];
        if (!library->problem[0])
            pb_doctor_line(library->name, "%s, %s", library->version, library->path);
        else
            pb_doctor_line(library->name, "not found");
        if (library->problem[0] && d->usable_gpu) pb_doctor_find(d, "%s.", library->problem);
    }
}
