// bench: links=io,base
// A UNet of twice the width that computes the same function, for scripts/fidelity.sh: so a medium model can be made of
// the demo's small one, and starts from something that has been learned. Every channel is there twice; a weight that
// reads it is split in two unequal parts, so that the two come apart as soon as they are trained.
// Usage: bench_widen IN.safetensors OUT.safetensors: the weights of a diffusers UNet; the caller doubles
// block_out_channels in its config.json
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"

#define TRY(call)                                        \
    do {                                                 \
        if ((call) != PB_OK) {                           \
            fprintf(stderr, "%s\n", pb_error_message()); \
            exit(1);                                     \
        }                                                \
    } while (0)

static bool ends(const char *name, const char *tail) {
    const size_t n = strlen(name), t = strlen(tail);
    return n >= t && !strcmp(name + n - t, tail);
}

// What of a tensor is widened: rows (output channels), columns (input channels).
typedef struct widening {
    bool rows, columns;
    bool sinusoids;  // columns are sines and cosines of the time step: those of the narrow model are every second one
    float scale;
} widening;

static widening widening_of(const char *name, int rank) {
    widening w = {.rows = strncmp(name, "conv_out.", 9) != 0, .columns = rank > 1, .scale = 1};
    if (!strncmp(name, "conv_in.", 8) || ends(name, "attn2.to_k.weight") || ends(name, "attn2.to_v.weight"))
        w.columns = false;
    w.sinusoids = ends(name, "time_embedding.linear_1.weight");
    // Heads are twice as wide, so a product of query and key is twice as large, and divided by sqrt(2) more.
    if (ends(name, "to_q.weight")) w.scale = sqrtf(0.5F);
    return w;
}

static void widen(const pb_safetensors *file, const pb_safetensors_entry *entry, uint64_t seed,
                  pb_safetensors_writer *writer) {
    const widening w = widening_of(entry->name, entry->rank);
    const int64_t rows = entry->shape[0], columns = entry->rank > 1 ? entry->shape[1] : 1;
    const int64_t taps = (int64_t)entry->elements / (rows * columns);
    const int64_t up = w.rows ? 2 : 1, across = w.columns ? 2 : 1;
    float *from = malloc((size_t)entry->elements * sizeof *from);
    float *to = calloc((size_t)(entry->elements * 4), sizeof *to);
    if (!from || !to) exit(1);
    TRY(pb_safetensors_read(file, entry, PB_F32, from));
    uint64_t state = seed;
    for (int64_t r = 0; r < rows * up; r++) {
        for (int64_t c = 0; c < columns; c++) {
            state = state * 6364136223846793005ULL + 1442695040888963407ULL;
            const float left = 0.25F + 0.5F * (float)(state >> 40) * 0x1p-24F;
            const float part[2] = {w.sinusoids ? 1 : left, w.sinusoids ? 0 : 1 - left};
            for (int64_t k = 0; k < across; k++)
                for (int64_t t = 0; t < taps; t++)
                    to[((r * columns + c) * across + k) * taps + t] =
                        from[(r / up * columns + c) * taps + t] * w.scale * (across == 2 ? part[k] : 1);
        }
    }
    TRY(pb_safetensors_writer_write(writer, to, entry->elements * (uint64_t)(up * across) * sizeof *to));
    free(from), free(to);
}

int main(int argc, char **argv) {
    pb_safetensors *file;
    pb_safetensors_writer *writer;
    if (argc != 3) return 2;
    TRY(pb_safetensors_open(argv[1], &file));
    TRY(pb_safetensors_writer_create(&writer));
    uint64_t parameters = 0;
    for (size_t i = 0; i < file->count; i++) {
        pb_safetensors_entry entry = file->tensors[i];
        const widening w = widening_of(entry.name, entry.rank);
        if (w.rows) entry.shape[0] *= 2;
        if (w.columns) entry.shape[1] *= 2;
        parameters += entry.elements * (uint64_t)((w.rows ? 2 : 1) * (w.columns ? 2 : 1));
        TRY(pb_safetensors_writer_declare(writer, entry.name, PB_F32, entry.rank, entry.shape));
    }
    TRY(pb_safetensors_writer_open(writer, argv[2]));
    for (size_t i = 0; i < pb_safetensors_writer_count(writer); i++)
        widen(file, pb_safetensors_find(file, pb_safetensors_writer_entry(writer, i)->name), i, writer);
    TRY(pb_safetensors_writer_finish(writer));
    pb_safetensors_writer_destroy(writer);
    pb_safetensors_close(file);
    printf("%llu parameters\n", (unsigned long long)parameters);
    return 0;
}
