// fuzz: links=train,io,base
// Any bytes as the map of a checkpoint's state. What is accepted leads nowhere outside the two files: every tensor can
// be read from its first byte to its last.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "io/safetensors.h"
#include "train/saved_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SWAP_BYTES = 16384, READ_MOST = 1 << 16 };

static char folder[256], map[300], memory[300], swap_file[300];

static void remove_all(void) {
    unlink(map);
    unlink(memory);
    unlink(swap_file);
    rmdir(folder);
}

// The files that maps of the corpus speak of.
static void make_folder(void) {
    static unsigned char bytes[SWAP_BYTES];
    const char *parent = !access("/dev/shm", W_OK) ? "/dev/shm" : "/tmp";
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 7);
    snprintf(folder, sizeof folder, "%s/pagebooth-fuzz-XXXXXX", parent);
    if (!mkdtemp(folder)) abort();
    snprintf(map, sizeof map, "%s/" PB_SAVED_MAP, folder);
    snprintf(memory, sizeof memory, "%s/" PB_SAVED_MEMORY, folder);
    snprintf(swap_file, sizeof swap_file, "%s/" PB_SAVED_SWAP, folder);
    const pb_safetensors_array arrays[] = {{"b", PB_BF16, 1, {100}, bytes}, {"c", PB_U8, 1, {10}, bytes}};
    if (pb_safetensors_save(memory, arrays, 2) != PB_OK || pb_fs_write_file(swap_file, bytes, sizeof bytes) != PB_OK)
        abort();
    atexit(remove_all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static unsigned char found[READ_MOST];
    pb_saved_state *state = NULL;
    if (!folder[0]) make_folder();
    FILE *file = fopen(map, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file)) abort();
    if (pb_saved_state_open(folder, &state) != PB_OK) return 0;
    for (size_t i = 0; i < state->extent_count; i++)
        if (state->extents[i].offset + state->extents[i].bytes > SWAP_BYTES) abort();
    pb_saved_state_verify(state);
    for (size_t i = 0; i < state->count; i++) {
        const pb_saved_tensor *t = &state->tensors[i];
        if (pb_saved_state_find(state, t->name) != t) abort();
        for (uint64_t at = 0; at < t->bytes; at += READ_MOST) {
            const uint64_t part = t->bytes - at < READ_MOST ? t->bytes - at : READ_MOST;
            if (pb_saved_state_read(state, t, at, part, found) != PB_OK) abort();
        }
    }
    pb_saved_state_close(state);
    return 0;
}
