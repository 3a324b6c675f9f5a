// What of a run's memory has to outlive it: for each trained parameter the weight (a master, a working weight that is
// its own master, or both halves of a split one) and AdamW's moments, as they are kept; and where each byte of it is.
#ifndef PB_TRAIN_STATE_VALUES_H
#define PB_TRAIN_STATE_VALUES_H

#include "io/safetensors.h"
#include "train/trainer_parts.h"

enum { PB_STATE_NAME = 320, PB_STATE_CHUNK = 1 << 22 };

typedef enum pb_state_kind {
    PB_STATE_WEIGHT,    // a master, or a working weight that has none: must be finite
    PB_STATE_RESIDUAL,  // of a split master: finite itself, while what it belongs to may be not
    PB_STATE_MOMENT,    // or the scales of its blocks
    PB_STATE_DERIVED    // a working copy that is made from the master of this name: not kept
} pb_state_kind;

typedef struct pb_state_value {
    char name[PB_STATE_NAME];  // "unet.conv_in.weight.exp_avg"
    pb_vid value;
    pb_state_kind kind;
} pb_state_value;

// A stretch of a value that lies in one place.
typedef struct pb_state_piece {
    const pb_state_value *value;
    pb_piece at;
} pb_state_piece;

typedef struct pb_state_values {
    const pb_pass_program *program;
    pb_memory *memory;
    pb_state_value *items;  // by name; what is derived behind the master
    size_t count;
    pb_state_piece *pieces;  // of all of them, by place: tier, extent, offset
    size_t piece_count;
    bool swapped;           // whether a part of what is kept lies on NVMe
    uint64_t swap_bytes;    // of what is kept and lies there
    uint64_t memory_bytes;  // of what is kept and lies in host or device memory
} pb_state_values;

// Errors: PB_ERR_MEMORY.
pb_status pb_state_values_list(pb_programs *programs, pb_state_values *values);
void pb_state_values_deinit(pb_state_values *values);

static inline const pb_value *pb_state_value_of(const pb_state_values *values, const pb_state_value *value) {
    return pb_graph_value(values->program->step->graph, value->value);
}

// What is kept under that name, or NULL. O(log count).
const pb_state_value *pb_state_values_find(const pb_state_values *values, const char *name);
// Where a value is: returns how many pieces, ascending. What is as a whole on the device, where the program may have
// just its home, is the one piece *whole.
uint32_t pb_state_pieces_of(const pb_state_values *values, const pb_state_value *value, const pb_piece **pieces,
                            pb_piece *whole);
// Writes bytes [begin, begin + bytes) of a value, a chunk at a time. `buffer` has room for one.
pb_status pb_state_write(const pb_state_values *values, const pb_state_value *value, uint64_t begin, uint64_t bytes,
                         void *buffer, pb_safetensors_writer *writer);

// Reads every weight, and of values on NVMe every extent against its hash. PB_ERR_NUMERIC, naming a weight that is not
// finite.
pb_status pb_state_check(const pb_state_values *values);

// --- The two kinds of checkpoints ---

struct pb_checkpoint_writer;

// state_portable.c: weights in fp32 by the names and layouts of the model's own files, and the moments beside them;
// what lay where does not show.
pb_status pb_state_portable_save(pb_trainer *trainer, const pb_state_values *values,
                                 struct pb_checkpoint_writer *writer);
pb_status pb_state_portable_load(pb_trainer *trainer, const pb_state_values *values, const char *path);

// state_swap.c: everything as it is kept (state.safetensors, state.swap, and state.json that says what is where).
// `how` says how the swap file became the checkpoint's.
pb_status pb_state_swap_save(const pb_state_values *values, struct pb_checkpoint_writer *writer, pb_kept_as *how);
// *adopted: where the state lies as it did, the checkpoint's swap file is read as this run's, and nothing of it is
// copied.
pb_status pb_state_swap_load(const pb_state_values *values, const char *path, bool *adopted);

#endif
