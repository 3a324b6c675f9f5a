// What `pagebooth doctor` is made of: each part looks at one side of the machine and prints what it finds.
#ifndef PB_CLI_DOCTOR_H
#define PB_CLI_DOCTOR_H

#include <stdbool.h>

#include "base/error.h"

enum { PB_DOCTOR_FINDINGS = 32 };

typedef struct pb_doctor {
    int count;  // of findings
    char finding[PB_DOCTOR_FINDINGS][2200];
    bool usable_gpu;
} pb_doctor;

// A line of the report: "  label   text".
void pb_doctor_line(const char *label, const char *format, ...) __attribute__((format(printf, 2, 3)));
// Something that should be changed, and how. Kept for the end of the report.
void pb_doctor_find(pb_doctor *doctor, const char *format, ...) __attribute__((format(printf, 2, 3)));

void pb_doctor_machine(pb_doctor *doctor);                         // processors, memory, limits
void pb_doctor_gpus(pb_doctor *doctor);                            // driver, GPUs, libraries
void pb_doctor_storage(pb_doctor *doctor, const char *directory);  // for the NVMe tier; needs doctor_gpus before

#endif
