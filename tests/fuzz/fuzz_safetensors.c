// fuzz: links=io,base
// Any bytes as a safetensors file: as they are, and once more with the header's length and the file's end set to what
// the table says, since hardly a mutation gets past them. What opens is read in full and tiles the file.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const pb_safetensors *file) {
    static unsigned char buffer[1 << 16];
    uint64_t bytes = 0;
    for (size_t i = 0; i < file->count; i++) {
        const pb_safetensors_entry *e = &file->tensors[i];
        bytes += e->bytes;
        if (e->offset > file->file_bytes || e->bytes > file->file_bytes - e->offset) abort();
        if (pb_safetensors_find(file, e->name) != e) abort();
        const uint64_t some = e->bytes < sizeof buffer ? e->bytes : sizeof buffer;
        if (pb_safetensors_read_bytes(file, e, 0, some, buffer) != PB_OK) abort();
        const uint64_t count = e->elements < sizeof buffer / 8 ? e->elements : sizeof buffer / 8;
        pb_safetensors_read_range(file, e, 0, count, PB_F32, buffer);
        if (pb_safetensors_read_bytes(file, e, e->bytes, 1, buffer) == PB_OK) abort();
        if (pb_safetensors_read_range(file, e, e->elements, 1, PB_F32, buffer) == PB_OK) abort();
    }
    pb_safetensors_find(file, "no such tensor");
    pb_safetensors_metadata_get(file, "no such key");
    if (bytes > file->file_bytes) abort();
    for (size_t i = 0; i < file->metadata_count; i++)
        if (pb_safetensors_metadata_get(file, file->metadata[i].key) != file->metadata[i].value) abort();
}

static void open_bytes(const void *head, size_t head_bytes, const void *rest, size_t rest_bytes) {
    const int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0) return;
    if (write(fd, head, head_bytes) == (ssize_t)head_bytes && write(fd, rest, rest_bytes) == (ssize_t)rest_bytes) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        pb_safetensors *file = NULL;
        pb_error_clear();
        if (pb_safetensors_open(path, &file) == PB_OK)
            read_all(file);
        else if (file || !*pb_error_message())
            abort();  // a failure leaves no file, and says why
        pb_safetensors_close(file);
    }
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    open_bytes(data, size, "", 0);
    if (size < 8) return 0;
    const uint8_t *header = data + 8;
    uint64_t bytes = size - 8;
    while (bytes && header[bytes - 1] != '}') bytes--;
    uint8_t *fixed = malloc(8 + bytes + 1);
    if (!fixed) return 0;
    memcpy(fixed, &bytes, 8);
    memcpy(fixed + 8, header, bytes);
    open_bytes(fixed, 8 + bytes, header + bytes, size - 8 - bytes);
    free(fixed);
    return 0;
}
