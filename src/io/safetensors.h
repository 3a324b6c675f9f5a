// The safetensors format: u64 length, a JSON table, the tensors' bytes. Reading is strict: the whole table is checked
// (sizes without overflow, ranges contiguous from 0 to the end of the file) before anything is allocated for it beyond
// its own length. Source of the rules: https://github.com/huggingface/safetensors (README, "Format").
#ifndef PB_IO_SAFETENSORS_H
#define PB_IO_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"

enum { PB_ST_RANK = 8, PB_ST_TENSORS = 65536, PB_ST_HEADER_BYTES = 100000000 };

typedef struct pb_safetensors_entry {
    const char *name;
    pb_dtype dtype;          // PB_DTYPE_COUNT: known to the format (F8_E4M3, BOOL, I16, ...) but not to this program
    const char *dtype_name;  // as in the file
    int rank;                // 0 is a scalar
    int64_t shape[PB_ST_RANK];
    uint64_t elements, bytes;
    uint64_t offset;  // in the file
} pb_safetensors_entry;

typedef struct pb_safetensors_metadata {
    const char *key, *value;
} pb_safetensors_metadata;

typedef struct pb_safetensors {
    const char *path;
    uint64_t file_bytes;
    const pb_safetensors_entry *tensors;  // by name, in byte order
    size_t count;
    const pb_safetensors_metadata *metadata;  // by key, in byte order
    size_t metadata_count;
    struct pb_safetensors_private *private_;
} pb_safetensors;

// Errors: PB_ERR_IO, PB_ERR_FORMAT (naming the tensor), PB_ERR_MEMORY.
pb_status pb_safetensors_open(const char *path, pb_safetensors **file);
void pb_safetensors_close(pb_safetensors *file);  // NULL is allowed

// O(log count). NULL where there is none.
const pb_safetensors_entry *pb_safetensors_find(const pb_safetensors *file, const char *name);
const char *pb_safetensors_metadata_get(const pb_safetensors *file, const char *key);

// Elements [first, first + count) as `dtype` into `data` (count * pb_dtype_size(dtype) bytes). Between floating dtypes
// (F64, F32, F16, BF16) values are converted through a small buffer; any other dtype must be asked for as it is.
// Threads may read from one file at the same time. Errors: PB_ERR_UNSUPPORTED (a dtype that cannot become `dtype`,
// naming the tensor), PB_ERR_IO.
pb_status pb_safetensors_read_range(const pb_safetensors *file, const pb_safetensors_entry *entry, uint64_t first,
                                    uint64_t count, pb_dtype dtype, void *data);
pb_status pb_safetensors_read(const pb_safetensors *file, const pb_safetensors_entry *entry, pb_dtype dtype,
                              void *data);
// Bytes [begin, begin + count) of a tensor as they are in the file, whatever its dtype.
pb_status pb_safetensors_read_bytes(const pb_safetensors *file, const pb_safetensors_entry *entry, uint64_t begin,
                                    uint64_t count, void *data);

// --- Writing: declare every tensor, open, stream the data in the order of pb_safetensors_writer_entry, finish ---
// The file is the one that the official writer makes: tensors by dtype (widest first), then by name; `format: pt`.

typedef struct pb_safetensors_writer pb_safetensors_writer;

pb_status pb_safetensors_writer_create(pb_safetensors_writer **writer);
// Removes an unfinished file. NULL is allowed.
void pb_safetensors_writer_destroy(pb_safetensors_writer *writer);

// Before open. `name` is copied. PB_ERR_FORMAT: a name twice, a rank or size out of range.
pb_status pb_safetensors_writer_declare(pb_safetensors_writer *writer, const char *name, pb_dtype dtype, int rank,
                                        const int64_t *shape);
// Declares a tensor like one that was read, of any dtype of the format.
pb_status pb_safetensors_writer_declare_like(pb_safetensors_writer *writer, const pb_safetensors_entry *entry);
pb_status pb_safetensors_writer_metadata(pb_safetensors_writer *writer, const char *key, const char *value);
// Fixes the order and writes the header; PB_ERR_IO where the disk has no room for the whole file.
pb_status pb_safetensors_writer_open(pb_safetensors_writer *writer, const char *path);

size_t pb_safetensors_writer_count(const pb_safetensors_writer *writer);
const pb_safetensors_entry *pb_safetensors_writer_entry(const pb_safetensors_writer *writer, size_t i);
uint64_t pb_safetensors_writer_bytes(const pb_safetensors_writer *writer);  // of the whole file, after open

// The next bytes of the stream; a call may end within a tensor or span several.
pb_status pb_safetensors_writer_write(pb_safetensors_writer *writer, const void *data, uint64_t bytes);
// The next `count` elements of the current tensor, converted from `dtype` to the declared one (floating dtypes).
pb_status pb_safetensors_writer_convert(pb_safetensors_writer *writer, pb_dtype dtype, const void *data,
                                        uint64_t count);
// fsync, rename, fsync of the directory. PB_ERR_INTERNAL when data are missing.
pb_status pb_safetensors_writer_finish(pb_safetensors_writer *writer);
// The same without the rename: the file stays under a temporary name in its directory, which the caller frees.
pb_status pb_safetensors_writer_finish_unnamed(pb_safetensors_writer *writer, char **temporary);

// A few arrays at once.
typedef struct pb_safetensors_array {
    const char *name;
    pb_dtype dtype;
    int rank;
    int64_t shape[PB_ST_RANK];
    const void *data;
} pb_safetensors_array;
pb_status pb_safetensors_save(const char *path, const pb_safetensors_array *arrays, size_t count);

#endif
