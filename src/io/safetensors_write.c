// Writing, byte for byte what the official writer makes of the same tensors.
#include "io/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/fs.h"
#include "base/json.h"
#include "io/safetensors_dtype.h"

enum { CONVERT_BYTES = 64 * 1024 };

typedef struct declared {
    pb_safetensors_entry entry;
    const pb_safetensors_dtype *type;
} declared;

struct pb_safetensors_writer {
    pb_arena *arena;
    declared *tensors;
    size_t count, capacity;
    pb_safetensors_metadata *metadata;
    size_t metadata_count, metadata_capacity;
    pb_fs_output output;
    bool open;
    uint64_t file_bytes, written;  // with the header
    size_t current;                // the tensor that the next byte belongs to
    _Alignas(16) unsigned char buffer[CONVERT_BYTES];
};

pb_status pb_safetensors_writer_create(pb_safetensors_writer **result) {
    pb_safetensors_writer *writer = calloc(1, sizeof *writer);
    if (writer) {
        writer->output = PB_FS_OUTPUT_NONE;
        writer->arena = pb_arena_create();
    }
    if (!writer || !writer->arena) {
        free(writer);
        return pb_error(PB_ERR_MEMORY, "no memory to write tensors");
    }
    *result = writer;
    return PB_OK;
}

void pb_safetensors_writer_destroy(pb_safetensors_writer *writer) {
    if (!writer) return;
    pb_fs_output_discard(&writer->output);
    free(writer->tensors);
    free(writer->metadata);
    pb_arena_destroy(writer->arena);
    free(writer);
}

static bool grow(void **array, size_t count, size_t *capacity, size_t size) {
    if (count < *capacity) return true;
    const size_t larger = *capacity ? 2 * *capacity : 64;
    void *moved = realloc(*array, larger * size);
    if (!moved) return false;
    *array = moved;
    *capacity = larger;
    return true;
}

static pb_status declare(pb_safetensors_writer *writer, const char *name, const char *dtype_name, int rank,
                         const int64_t *shape) {
    const pb_safetensors_dtype *type = pb_safetensors_dtype_find(dtype_name, strlen(dtype_name));
    declared d = {.type = type};
    if (writer->count == PB_ST_TENSORS) return pb_error(PB_ERR_FORMAT, "more than %d tensors in a file", PB_ST_TENSORS);
    if (rank < 0 || rank > PB_ST_RANK || !type ||
        !pb_safetensors_tensor_bytes(type, rank, shape, &d.entry.elements, &d.entry.bytes))
        return pb_error(PB_ERR_FORMAT, "tensor \"%s\" has a shape that no file can hold", name);
    if (!grow((void **)&writer->tensors, writer->count, &writer->capacity, sizeof d) ||
        !(d.entry.name = pb_arena_string(writer->arena, name)))
        return pb_error(PB_ERR_MEMORY, "no memory to write tensors");
    d.entry.dtype = type->dtype;
    d.entry.dtype_name = type->name;
    d.entry.rank = rank;
    for (int i = 0; i < rank; i++) d.entry.shape[i] = shape[i];
    writer->tensors[writer->count++] = d;
    return PB_OK;
}

pb_status pb_safetensors_writer_declare(pb_safetensors_writer *writer, const char *name, pb_dtype dtype, int rank,
                                        const int64_t *shape) {
    return declare(writer, name, pb_dtype_name(dtype), rank, shape);
}

pb_status pb_safetensors_writer_declare_like(pb_safetensors_writer *writer, const pb_safetensors_entry *entry) {
    return declare(writer, entry->name, entry->dtype_name, entry->rank, entry->shape);
}

pb_status pb_safetensors_writer_metadata(pb_safetensors_writer *writer, const char *key, const char *value) {
    pb_safetensors_metadata m = {pb_arena_string(writer->arena, key), pb_arena_string(writer->arena, value)};
    if (!m.key || !m.value ||
        !grow((void **)&writer->metadata, writer->metadata_count, &writer->metadata_capacity, sizeof m))
        return pb_error(PB_ERR_MEMORY, "no memory to write tensors");
    writer->metadata[writer->metadata_count++] = m;
    return PB_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const declared *)a)->entry.name, ((const declared *)b)->entry.name);
}

static int by_width(const void *a, const void *b) {
    const declared *x = a, *y = b;
    if (x->type != y->type) return x->type > y->type ? -1 : 1;
    return by_name(a, b);
}

static pb_status order_tensors(pb_safetensors_writer *writer) {
    if (!writer->count) return PB_OK;
    qsort(writer->tensors, writer->count, sizeof *writer->tensors, by_name);
    for (size_t i = 1; i < writer->count; i++)
        if (by_name(&writer->tensors[i - 1], &writer->tensors[i]) == 0)
            return pb_error(PB_ERR_FORMAT, "tensor \"%s\" twice in one file", writer->tensors[i].entry.name);
    qsort(writer->tensors, writer->count, sizeof *writer->tensors, by_width);
    return PB_OK;
}

static void append_metadata(pb_text *header, const char *key, const char *value) {
    pb_text_append_json_string(header, key, strlen(key));
    pb_text_append(header, ":");
    pb_text_append_json_string(header, value, strlen(value));
}

// The header with its length in front, padded to a multiple of 8. Sets the entries' offsets, relative to the data.
static void print_header(pb_safetensors_writer *writer, pb_text *header) {
    pb_text_append(header, "%8s{\"__metadata__\":{", "");
    append_metadata(header, "format", "pt");
    for (size_t i = 0; i < writer->metadata_count; i++) {
        pb_text_append(header, ",");
        append_metadata(header, writer->metadata[i].key, writer->metadata[i].value);
    }
    pb_text_append(header, "}");
    uint64_t offset = 0;
    for (size_t i = 0; i < writer->count; i++) {
        pb_safetensors_entry *entry = &writer->tensors[i].entry;
        pb_text_append(header, ",");
        pb_text_append_json_string(header, entry->name, strlen(entry->name));
        pb_text_append(header, ":{\"dtype\":\"%s\",\"shape\":[", entry->dtype_name);
        for (int d = 0; d < entry->rank; d++)
            pb_text_append(header, "%s%lld", d ? "," : "", (long long)entry->shape[d]);
        pb_text_append(header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
                       (unsigned long long)(offset + entry->bytes));
        entry->offset = offset;
        offset += entry->bytes;
    }
    pb_text_append(header, "}");
    pb_text_append(header, "%*s", (int)(-header->bytes % 8), "");
    if (header->failed) return;
    const uint64_t bytes = header->bytes - 8;
    memcpy(header->data, &bytes, sizeof bytes);
    for (size_t i = 0; i < writer->count; i++) writer->tensors[i].entry.offset += header->bytes;
    writer->file_bytes = header->bytes + offset;
    writer->written = header->bytes;
}

pb_status pb_safetensors_writer_open(pb_safetensors_writer *writer, const char *path) {
    pb_status status = PB_OK;
    pb_text header = {0};
    PB_TRY(order_tensors(writer));
    print_header(writer, &header);
    if (header.failed) PB_FAIL(PB_ERR_MEMORY, "no memory to write tensors");
    if (header.bytes > PB_ST_HEADER_BYTES) PB_FAIL(PB_ERR_FORMAT, "%s: the table of tensors is too long", path);
    PB_TRY(pb_fs_require_space(path, writer->file_bytes, pb_fs_base_name(path)));
    PB_TRY(pb_fs_output_open(&writer->output, path));
    PB_TRY(pb_fs_output_write(&writer->output, header.data, header.bytes));
    writer->open = true;
fail:
    pb_text_deinit(&header);
    return status;
}

size_t pb_safetensors_writer_count(const pb_safetensors_writer *writer) {
    return writer->count;
}

const pb_safetensors_entry *pb_safetensors_writer_entry(const pb_safetensors_writer *writer, size_t i) {
    return &writer->tensors[i].entry;
}

uint64_t pb_safetensors_writer_bytes(const pb_safetensors_writer *writer) {
    return writer->file_bytes;
}

pb_status pb_safetensors_writer_write(pb_safetensors_writer *writer, const void *data, uint64_t bytes) {
    if (!writer->open || bytes > writer->file_bytes - writer->written)
        return pb_error(PB_ERR_INTERNAL, "more bytes than the declared tensors have");
    PB_RETURN_IF(pb_fs_output_write(&writer->output, data, (size_t)bytes));
    writer->written += bytes;
    return PB_OK;
}

// The tensor that the next byte belongs to; NULL behind the last.
static const pb_safetensors_entry *current_entry(pb_safetensors_writer *writer) {
    while (writer->current < writer->count) {
        const pb_safetensors_entry *entry = &writer->tensors[writer->current].entry;
        if (writer->written < entry->offset + entry->bytes) return entry;
        writer->current++;
    }
    return NULL;
}

pb_status pb_safetensors_writer_convert(pb_safetensors_writer *writer, pb_dtype dtype, const void *data,
                                        uint64_t count) {
    if (count == 0) return PB_OK;
    const pb_safetensors_entry *entry = writer->open ? current_entry(writer) : NULL;
    if (!entry || entry->dtype == PB_DTYPE_COUNT)
        return pb_error(PB_ERR_INTERNAL, "elements without a tensor that takes them");
    const size_t from_size = pb_dtype_size(dtype), to_size = pb_dtype_size(entry->dtype);
    if (entry->dtype != dtype && !(pb_safetensors_is_float(dtype) && pb_safetensors_is_float(entry->dtype)))
        return pb_error(PB_ERR_INTERNAL, "tensor \"%s\" is %s, not %s", entry->name, entry->dtype_name,
                        pb_dtype_name(dtype));
    if (count > (entry->offset + entry->bytes - writer->written) / to_size)
        return pb_error(PB_ERR_INTERNAL, "more elements than tensor \"%s\" has", entry->name);
    if (entry->dtype == dtype) return pb_safetensors_writer_write(writer, data, count * to_size);
    for (uint64_t done = 0; done < count;) {
        const uint64_t room = CONVERT_BYTES / to_size, piece = count - done < room ? count - done : room;
        pb_convert(entry->dtype, writer->buffer, dtype, (const unsigned char *)data + done * from_size, (size_t)piece);
        PB_RETURN_IF(pb_safetensors_writer_write(writer, writer->buffer, piece * to_size));
        done += piece;
    }
    return PB_OK;
}

static pb_status check_complete(const pb_safetensors_writer *writer) {
    if (writer->open && writer->written == writer->file_bytes) return PB_OK;
    return pb_error(PB_ERR_INTERNAL, "%llu bytes of the declared tensors were not written",
                    (unsigned long long)(writer->file_bytes - writer->written));
}

pb_status pb_safetensors_writer_finish(pb_safetensors_writer *writer) {
    PB_RETURN_IF(check_complete(writer));
    writer->open = false;
    return pb_fs_output_commit(&writer->output);
}

pb_status pb_safetensors_writer_finish_unnamed(pb_safetensors_writer *writer, char **temporary) {
    PB_RETURN_IF(check_complete(writer));
    writer->open = false;
    return pb_fs_output_detach(&writer->output, temporary);
}

pb_status pb_safetensors_save(const char *path, const pb_safetensors_array *arrays, size_t count) {
    pb_status status = PB_OK;
    pb_safetensors_writer *writer = NULL;
    PB_TRY(pb_safetensors_writer_create(&writer));
    for (size_t i = 0; i < count; i++)
        PB_TRY(pb_safetensors_writer_declare(writer, arrays[i].name, arrays[i].dtype, arrays[i].rank, arrays[i].shape));
    PB_TRY(pb_safetensors_writer_open(writer, path));
    for (size_t w = 0; w < count; w++) {
        const pb_safetensors_entry *entry = &writer->tensors[w].entry;
        size_t i = 0;
        while (strcmp(arrays[i].name, entry->name) != 0) i++;
        PB_TRY(pb_safetensors_writer_write(writer, arrays[i].data, entry->bytes));
    }
    PB_TRY(pb_safetensors_writer_finish(writer));
fail:
    pb_safetensors_writer_destroy(writer);
    return status;
}
