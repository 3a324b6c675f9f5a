// bench: links=io,base
// How far training with a format of the optimizer's state leads away: the distance of final weights to another run's,
// over the length of the way that run has gone. Used by scripts/fidelity.sh.
// Usage: bench_fidelity INITIAL REFERENCE OTHER: three safetensors files with the same tensors
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/safetensors.h"

static float *load(const pb_safetensors *file, const pb_safetensors_entry *like) {
    const pb_safetensors_entry *entry = pb_safetensors_find(file, like->name);
    float *data = malloc((size_t)(like->elements + 1) * sizeof *data);
    if (!entry || !data || entry->elements != like->elements ||
        pb_safetensors_read(file, entry, PB_F32, data) != PB_OK) {
        fprintf(stderr, "%s: %s cannot be read\n", file->path, like->name);
        exit(1);
    }
    return data;
}

int main(int argc, char **argv) {
    pb_safetensors *file[3] = {NULL};
    if (argc != 4) return 2;
    for (int i = 0; i < 3; i++) {
        if (pb_safetensors_open(argv[i + 1], &file[i]) == PB_OK) continue;
        fprintf(stderr, "%s\n", pb_error_message());
        return 1;
    }
    double off = 0, way = 0;
    for (size_t t = 0; t < file[1]->count; t++) {
        const pb_safetensors_entry *entry = &file[1]->tensors[t];
        if (!(entry->dtype == PB_F32 || entry->dtype == PB_F16 || entry->dtype == PB_BF16)) continue;
        float *x[3];
        for (int i = 0; i < 3; i++) x[i] = load(file[i], entry);
        for (uint64_t k = 0; k < entry->elements; k++) {
            off += pow((double)x[2][k] - x[1][k], 2);
            way += pow((double)x[1][k] - x[0][k], 2);
        }
        for (int i = 0; i < 3; i++) free(x[i]);
    }
    printf("%.4f\n", sqrt(off / way));
    for (int i = 0; i < 3; i++) pb_safetensors_close(file[i]);
    return 0;
}
