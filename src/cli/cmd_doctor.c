// pagebooth doctor: what this machine has, and what to change about it.
#include <stdarg.h>
#include <stdio.h>

#include "cli/commands.h"
#include "cli/doctor.h"
#include "cli/options.h"

void pb_doctor_line(const char *label, const char *format, ...) {
    va_list list;
    va_start(list, format);
    printf("  %-18s ", label);
    vprintf(format, list);
    putchar('\n');
    va_end(list);
}

void pb_doctor_find(pb_doctor *d, const char *format, ...) {
    if (d->count == PB_DOCTOR_FINDINGS) return;
    va_list list;
    va_start(list, format);
    vsnprintf(d->finding[d->count++], sizeof d->finding[0], format, list);
    va_end(list);
}

pb_status pb_command_doctor(int argc, char **argv) {
    const char *directory = ".";
    const pb_option options[] = {
        PB_OPTION_TEXT("--nvme", NULL, "DIR", &directory,
                       "where the NVMe tier will live; a small scratch file is tried there (the current directory)"),
    };
    const pb_command_line line = {
        .summary = "Looks at the machine: processors, memory and its limits, the NVIDIA driver, GPUs and libraries,\n"
                   "and the storage for the NVMe tier. Says what to change, if anything. Exit code 0: nothing; 1: the\n"
                   "changes that it lists.",
        .options = options,
        .option_count = PB_COUNT_OF(options),
    };
    bool done = false;
    PB_RETURN_IF(pb_options_parse(&line, argc, argv, &done));
    if (done) return PB_OK;

    static pb_doctor doctor;
    doctor = (pb_doctor){.count = 0};
    printf("Machine\n");
    pb_doctor_machine(&doctor);
    printf("CUDA\n");
    pb_doctor_gpus(&doctor);
    printf("Storage\n");
    pb_doctor_storage(&doctor, directory);
    if (doctor.count == 0) {
        printf("\nNothing to change.\n");
        return PB_OK;
    }
    printf("\nTo change\n");
    for (int i = 0; i < doctor.count; i++) printf("  %d. %s\n", i + 1, doctor.finding[i]);
    return pb_error(PB_ERR_UNSUPPORTED, "doctor: %d thing%s to change, see above", doctor.count,
                    doctor.count == 1 ? "" : "s");
}
