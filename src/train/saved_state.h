// A checkpoint in the format `swap`, for reading: tensors whose bytes lie partly in state.safetensors and partly in
// extents of state.swap, as state.json says (docs/formats.md).
#ifndef PB_TRAIN_SAVED_STATE_H
#define PB_TRAIN_SAVED_STATE_H

#include "base/dtype.h"
#include "base/hash.h"
#include "io/safetensors.h"

#define PB_SAVED_MAP "state.json"
#define PB_SAVED_MEMORY "state.safetensors"
#define PB_SAVED_SWAP "state.swap"

typedef struct pb_saved_extent {
    uint64_t offset, bytes;  // in state.swap
    uint64_t hash[2];        // XXH3-128, low half first
} pb_saved_extent;

typedef struct pb_saved_piece {
    uint64_t begin, bytes;  // of the tensor
    bool swapped;
    uint32_t extent;  // where it is swapped
    uint64_t at;      // into the extent, or into the tensor of the same name in state.safetensors
} pb_saved_piece;

typedef struct pb_saved_tensor {
    const char *name;
    pb_dtype dtype;
    int rank;
    int64_t shape[PB_ST_RANK];
    uint64_t bytes;
    const pb_saved_piece *pieces;  // ascending and without gaps
    size_t piece_count;
} pb_saved_tensor;

typedef struct pb_saved_state {
    const char *path, *swap_path;    // of the checkpoint, of its state.swap
    const pb_saved_tensor *tensors;  // by name
    size_t count;
    const pb_saved_extent *extents;
    size_t extent_count;
    uint64_t swap_bytes;  // of state.swap; 0 where there is none
    struct pb_saved_state_private *private_;
} pb_saved_state;

// Whether the checkpoint is of this format.
bool pb_saved_state_is_there(const char *checkpoint);
// Errors: PB_ERR_FORMAT (state.json says what cannot be, a file is missing or of another size), PB_ERR_IO (state.swap
// is a link or a special file), PB_ERR_MEMORY.
pb_status pb_saved_state_open(const char *checkpoint, pb_saved_state **state);
void pb_saved_state_close(pb_saved_state *state);  // NULL is allowed
// Reads every extent and compares it with its hash. PB_ERR_FORMAT naming file and place.
pb_status pb_saved_state_verify(const pb_saved_state *state);
const pb_saved_tensor *pb_saved_state_find(const pb_saved_state *state, const char *name);  // O(log count)
pb_status pb_saved_state_read(const pb_saved_state *state, const pb_saved_tensor *tensor, uint64_t begin,
                              uint64_t bytes, void *data);

#endif
