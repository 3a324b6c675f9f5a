// Reading. The header is walked token by token, so that a hostile one of 100 MB costs no tree; every check comes before
// the memory that depends on what it checks.
#include "io/safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/fs.h"
#include "base/json_reader.h"
#include "io/safetensors_dtype.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian, and read as it lies");

enum { CONVERT_BYTES = 32 * 1024 };

struct pb_safetensors_private {
    pb_arena *arena;  // names and metadata
    int fd;
    pb_safetensors_entry *entries;
    size_t capacity;
    pb_safetensors_metadata *metadata;
    size_t metadata_capacity;
    bool metadata_seen;
};

// Room for one more of `size` bytes in a malloc'ed array of at most PB_ST_TENSORS.
static pb_status grow(const pb_json_reader *reader, void **array, size_t count, size_t *capacity, size_t size) {
    if (count < *capacity) return PB_OK;
    if (count == PB_ST_TENSORS) return pb_json_reader_error(reader, "more than %d entries", PB_ST_TENSORS);
    const size_t larger = *capacity ? 2 * *capacity : 256;
    void *moved = realloc(*array, larger * size);
    if (!moved) return pb_error(PB_ERR_MEMORY, "%s: no memory for the table", reader->name);
    *array = moved;
    *capacity = larger;
    return PB_OK;
}

static pb_status expect(pb_json_reader *reader, pb_json_token wanted, const char *what) {
    pb_json_token token;
    PB_RETURN_IF(pb_json_reader_next(reader, &token));
    return token == wanted ? PB_OK : pb_json_reader_error(reader, "expected %s", what);
}

// The last key or string in the arena. A NUL inside would hide the rest of it.
static pb_status take_string(pb_arena *arena, const pb_json_reader *reader, const char **text) {
    char *copy = pb_arena_alloc(arena, reader->string_bytes + 1);
    if (!copy) return pb_error(PB_ERR_MEMORY, "%s: no memory for the table", reader->name);
    pb_json_reader_string(reader, copy);
    *text = copy;
    return strlen(copy) == reader->string_bytes ? PB_OK : pb_json_reader_error(reader, "a NUL character in a string");
}

static pb_status read_size(const pb_json_reader *reader, pb_json_token token, int64_t *size) {
    bool is_integer = false;
    double number;
    if (token == PB_JSON_VALUE_NUMBER) PB_RETURN_IF(pb_json_reader_number(reader, &is_integer, size, &number));
    return is_integer && reader->token[0] != '-' ? PB_OK
                                                 : pb_json_reader_error(reader, "expected a size: a whole number");
}

// [size, ...] of at most `limit` sizes.
static pb_status read_sizes(pb_json_reader *reader, int limit, int64_t *sizes, int *count) {
    PB_RETURN_IF(expect(reader, PB_JSON_ARRAY_BEGIN, "a list of sizes"));
    for (*count = 0;;) {
        pb_json_token token;
        PB_RETURN_IF(pb_json_reader_next(reader, &token));
        if (token == PB_JSON_ARRAY_END) return PB_OK;
        if (*count == limit) return pb_json_reader_error(reader, "more than %d sizes in a list", limit);
        PB_RETURN_IF(read_size(reader, token, &sizes[(*count)++]));
    }
}

typedef enum field { FIELD_DTYPE, FIELD_SHAPE, FIELD_OFFSETS, FIELD_COUNT } field;

static pb_status read_field(const pb_json_reader *reader, field *which) {
    static const char *const names[FIELD_COUNT] = {"dtype", "shape", "data_offsets"};
    for (int i = 0; i < FIELD_COUNT; i++) {
        if (reader->token_bytes == strlen(names[i]) && memcmp(reader->token, names[i], reader->token_bytes) == 0) {
            *which = (field)i;
            return PB_OK;
        }
    }
    return pb_json_reader_error(reader, "expected \"dtype\", \"shape\" or \"data_offsets\"");
}

// The object of one tensor. `offset` becomes relative to the data; the ranges are checked later, all together.
static pb_status read_tensor_fields(pb_json_reader *reader, pb_safetensors_entry *entry) {
    const pb_safetensors_dtype *type = NULL;
    int64_t range[2] = {0, 0};
    unsigned seen = 0;
    PB_RETURN_IF(expect(reader, PB_JSON_OBJECT_BEGIN, "an object"));
    for (;;) {
        pb_json_token token;
        PB_RETURN_IF(pb_json_reader_next(reader, &token));
        if (token == PB_JSON_OBJECT_END) break;
        field which = FIELD_COUNT;
        PB_RETURN_IF(read_field(reader, &which));
        if (seen & 1u << which) return pb_json_reader_error(reader, "a field twice");
        seen |= 1u << which;
        int ends = 2;
        switch (which) {
        case FIELD_DTYPE:
            PB_RETURN_IF(expect(reader, PB_JSON_VALUE_STRING, "a dtype's name"));
            type = pb_safetensors_dtype_find(reader->token, reader->token_bytes);
            if (!type) return pb_json_reader_error(reader, "an unknown dtype");
            break;
        case FIELD_SHAPE: PB_RETURN_IF(read_sizes(reader, PB_ST_RANK, entry->shape, &entry->rank)); break;
        default: PB_RETURN_IF(read_sizes(reader, 2, range, &ends));
        }
        if (ends != 2) return pb_json_reader_error(reader, "data_offsets needs a begin and an end");
    }
    if (seen != (1u << FIELD_COUNT) - 1) return pb_json_reader_error(reader, "dtype, shape or data_offsets is missing");
    entry->dtype = type->dtype;
    entry->dtype_name = type->name;
    if (!pb_safetensors_tensor_bytes(type, entry->rank, entry->shape, &entry->elements, &entry->bytes))
        return pb_json_reader_error(reader, "the shape has more elements than a file can hold");
    if (range[1] < range[0] || (uint64_t)(range[1] - range[0]) != entry->bytes)
        return pb_json_reader_error(reader, "the shape needs %llu bytes, data_offsets gives %lld to %lld",
                                    (unsigned long long)entry->bytes, (long long)range[0], (long long)range[1]);
    entry->offset = (uint64_t)range[0];
    return PB_OK;
}

static pb_status read_metadata(pb_safetensors *file, pb_json_reader *reader) {
    struct pb_safetensors_private *p = file->private_;
    if (p->metadata_seen) return pb_json_reader_error(reader, "__metadata__ twice");
    p->metadata_seen = true;
    PB_RETURN_IF(expect(reader, PB_JSON_OBJECT_BEGIN, "an object of strings"));
    for (;;) {
        pb_json_token token;
        PB_RETURN_IF(pb_json_reader_next(reader, &token));
        if (token == PB_JSON_OBJECT_END) return PB_OK;
        PB_RETURN_IF(
            grow(reader, (void **)&p->metadata, file->metadata_count, &p->metadata_capacity, sizeof *p->metadata));
        pb_safetensors_metadata *m = &p->metadata[file->metadata_count++];
        PB_RETURN_IF(take_string(p->arena, reader, &m->key));
        PB_RETURN_IF(expect(reader, PB_JSON_VALUE_STRING, "a string: metadata are strings"));
        PB_RETURN_IF(take_string(p->arena, reader, &m->value));
    }
}

static pb_status read_table(pb_safetensors *file, pb_json_reader *reader) {
    struct pb_safetensors_private *p = file->private_;
    PB_RETURN_IF(expect(reader, PB_JSON_OBJECT_BEGIN, "an object"));
    for (;;) {
        pb_json_token token;
        PB_RETURN_IF(pb_json_reader_next(reader, &token));
        if (token == PB_JSON_OBJECT_END) break;
        const char *name;
        PB_RETURN_IF(take_string(p->arena, reader, &name));
        if (strcmp(name, "__metadata__") == 0) {
            PB_RETURN_IF(read_metadata(file, reader));
            continue;
        }
        PB_RETURN_IF(grow(reader, (void **)&p->entries, file->count, &p->capacity, sizeof *p->entries));
        pb_safetensors_entry *entry = &p->entries[file->count++];
        *entry = (pb_safetensors_entry){.name = name};
        const pb_status status = read_tensor_fields(reader, entry);
        if (status != PB_OK) return pb_error_context(status, "tensor \"%.200s\"", name);
    }
    return expect(reader, PB_JSON_FINISHED, "the end of the header");
}

static int by_offset(const void *a, const void *b) {
    const pb_safetensors_entry *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);  // an empty tensor before the one that begins where it lies
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const pb_safetensors_entry *)a)->name, ((const pb_safetensors_entry *)b)->name);
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const pb_safetensors_metadata *)a)->key, ((const pb_safetensors_metadata *)b)->key);
}

// The ranges must tile the data; then the offsets become the file's, and the order that of the names.
static pb_status check_table(pb_safetensors *file, uint64_t data_begin) {
    struct pb_safetensors_private *p = file->private_;
    const uint64_t data_bytes = file->file_bytes - data_begin;
    if (file->count) qsort(p->entries, file->count, sizeof *p->entries, by_offset);
    uint64_t end = 0;
    for (size_t i = 0; i < file->count; i++) {
        pb_safetensors_entry *entry = &p->entries[i];
        if (entry->offset != end)
            return pb_error(PB_ERR_FORMAT, "%s: tensor \"%.200s\" begins at byte %llu of the data, %s byte %llu",
                            file->path, entry->name, (unsigned long long)entry->offset,
                            entry->offset < end ? "within another one that ends at" : "behind a hole that begins at",
                            (unsigned long long)end);
        end += entry->bytes;  // no overflow: both are below 2^62
        if (end > data_bytes)
            return pb_error(PB_ERR_FORMAT,
                            "%s: tensor \"%.200s\" ends behind the end of the file: it is incomplete, get it anew",
                            file->path, entry->name);
        entry->offset += data_begin;
    }
    if (end != data_bytes)
        return pb_error(PB_ERR_FORMAT, "%s: %llu bytes behind the last tensor", file->path,
                        (unsigned long long)(data_bytes - end));
    if (file->count) qsort(p->entries, file->count, sizeof *p->entries, by_name);
    for (size_t i = 1; i < file->count; i++)
        if (by_name(&p->entries[i - 1], &p->entries[i]) == 0)
            return pb_error(PB_ERR_FORMAT, "%s: tensor \"%.200s\" is there twice", file->path, p->entries[i].name);
    if (file->metadata_count) qsort(p->metadata, file->metadata_count, sizeof *p->metadata, by_key);
    for (size_t i = 1; i < file->metadata_count; i++)
        if (by_key(&p->metadata[i - 1], &p->metadata[i]) == 0)
            return pb_error(PB_ERR_FORMAT, "%s: metadata \"%.200s\" twice", file->path, p->metadata[i].key);
    file->tensors = p->entries;
    file->metadata = p->metadata;
    return PB_OK;
}

// What lies in the place of weights when a download was none: by its first 8 bytes, which give no sensible length.
static pb_status refuse_length(const char *path, uint64_t bytes) {
    char start[sizeof bytes + 1] = "";
    memcpy(start, &bytes, sizeof bytes);
    if (!strcmp(start, "version "))
        return pb_error(PB_ERR_FORMAT, "%s is a Git LFS pointer, not the weights: fetch them with `git lfs pull`",
                        path);
    if (start[0] == '<')
        return pb_error(PB_ERR_FORMAT, "%s is a web page, not the weights: download the file itself", path);
    return pb_error(PB_ERR_FORMAT, "%s: a header of %llu bytes: no safetensors file", path, (unsigned long long)bytes);
}

static pb_status read_header(pb_safetensors *file) {
    pb_status status = PB_OK;
    const int fd = file->private_->fd;
    char *header = NULL;
    uint64_t bytes;
    if (file->file_bytes < sizeof bytes)
        PB_FAIL(PB_ERR_FORMAT, "%s has %llu bytes: no safetensors file", file->path,
                (unsigned long long)file->file_bytes);
    PB_TRY(pb_fs_pread(fd, &bytes, sizeof bytes, 0, file->path));
    if (bytes > PB_ST_HEADER_BYTES) PB_TRY(refuse_length(file->path, bytes));
    if (bytes > file->file_bytes - sizeof bytes)
        PB_FAIL(PB_ERR_FORMAT, "%s ends within its header: it is incomplete, get it anew", file->path);
    header = malloc(bytes ? (size_t)bytes : 1);
    if (!header) PB_FAIL(PB_ERR_MEMORY, "%s: no memory for the header", file->path);
    PB_TRY(pb_fs_pread(fd, header, (size_t)bytes, sizeof bytes, file->path));
    if (bytes == 0 || header[0] != '{') PB_FAIL(PB_ERR_FORMAT, "%s: the header does not begin with `{`", file->path);
    pb_json_reader reader = pb_json_reader_make(header, (size_t)bytes, file->path);
    PB_TRY(read_table(file, &reader));
    PB_TRY(check_table(file, sizeof bytes + bytes));
fail:
    free(header);
    return status;
}

pb_status pb_safetensors_open(const char *path, pb_safetensors **result) {
    pb_status status = PB_OK;
    pb_safetensors *file = calloc(1, sizeof *file);
    struct pb_safetensors_private *p = calloc(1, sizeof *p);
    if (file) file->private_ = p;
    if (p) p->fd = -1;
    if (!file || !p || !(p->arena = pb_arena_create()) || !(file->path = pb_arena_string(p->arena, path))) {
        if (!file) free(p);
        PB_FAIL(PB_ERR_MEMORY, "%s: no memory to open it", path);
    }
    PB_TRY(pb_fs_open_read(path, &p->fd, &file->file_bytes));
    PB_TRY(read_header(file));
    *result = file;
    return PB_OK;
fail:
    pb_safetensors_close(file);
    return status;
}

void pb_safetensors_close(pb_safetensors *file) {
    if (!file) return;
    struct pb_safetensors_private *p = file->private_;
    if (p) {
        if (p->fd >= 0) close(p->fd);
        free(p->entries);
        free(p->metadata);
        pb_arena_destroy(p->arena);
        free(p);
    }
    free(file);
}

const pb_safetensors_entry *pb_safetensors_find(const pb_safetensors *file, const char *name) {
    const pb_safetensors_entry key = {.name = name};
    return file->count ? bsearch(&key, file->tensors, file->count, sizeof key, by_name) : NULL;
}

const char *pb_safetensors_metadata_get(const pb_safetensors *file, const char *key) {
    const pb_safetensors_metadata wanted = {.key = key};
    const pb_safetensors_metadata *found =
        file->metadata_count ? bsearch(&wanted, file->metadata, file->metadata_count, sizeof wanted, by_key) : NULL;
    return found ? found->value : NULL;
}

pb_status pb_safetensors_read_bytes(const pb_safetensors *file, const pb_safetensors_entry *entry, uint64_t begin,
                                    uint64_t count, void *data) {
    if (begin > entry->bytes || count > entry->bytes - begin)
        return pb_error(PB_ERR_INTERNAL, "%s: tensor \"%s\" read beyond its end", file->path, entry->name);
    return pb_fs_pread(file->private_->fd, data, (size_t)count, entry->offset + begin, file->path);
}

pb_status pb_safetensors_read_range(const pb_safetensors *file, const pb_safetensors_entry *entry, uint64_t first,
                                    uint64_t count, pb_dtype dtype, void *data) {
    if (entry->dtype == PB_DTYPE_COUNT ||
        (entry->dtype != dtype && !(pb_safetensors_is_float(entry->dtype) && pb_safetensors_is_float(dtype))))
        return pb_error(PB_ERR_UNSUPPORTED, "%s: tensor \"%s\" is %s, which cannot be used as %s", file->path,
                        entry->name, entry->dtype_name, pb_dtype_name(dtype));
    if (first > entry->elements || count > entry->elements - first)
        return pb_error(PB_ERR_INTERNAL, "%s: tensor \"%s\" read beyond its end", file->path, entry->name);
    const size_t from_size = pb_dtype_size(entry->dtype), to_size = pb_dtype_size(dtype);
    if (entry->dtype == dtype)
        return pb_safetensors_read_bytes(file, entry, first * from_size, count * from_size, data);
    _Alignas(16) unsigned char buffer[CONVERT_BYTES];
    for (uint64_t done = 0; done < count;) {
        const uint64_t room = sizeof buffer / from_size, piece = count - done < room ? count - done : room;
        PB_RETURN_IF(pb_safetensors_read_bytes(file, entry, (first + done) * from_size, piece * from_size, buffer));
        pb_convert(dtype, (unsigned char *)data + done * to_size, entry->dtype, buffer, (size_t)piece);
        done += piece;
    }
    return PB_OK;
}

pb_status pb_safetensors_read(const pb_safetensors *file, const pb_safetensors_entry *entry, pb_dtype dtype,
                              void *data) {
    return pb_safetensors_read_range(file, entry, 0, entry->elements, dtype, data);
}
