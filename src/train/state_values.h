// What of a run's memory has to outlive it: for each trained parameter the weight (a master, a working weight that is
// its own master, or both halves of a split one) and AdamW's moments, as they are kept; and where each byte of it is.
#ifndef PB_TRAIN_STATE_VALUES_H
#define PB_TRAIN_STATE_VALUES_H

#include "train/trainer_parts.h"

enum { PB_STATE_NAME = 320, PB_STATE_CHUNK = 1 << 22 };

typedef struct pb_state_value {
    char name[PB_STATE_NAME];  // "unet.conv_in.weight.exp_avg"
    pb_vid value;
    bool weight;   // must be finite
    bool derived;  // a working copy that is made from the master of this name: not kept
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

// Reads every weight, and of values on NVMe every extent against its hash. PB_ERR_NUMERIC, naming a weight that is not
// finite.
pb_status pb_state_check(const pb_state_values *values);

// --- The two kinds of checkpoints ---

struct pb_checkpoint_writer;

// state_portable.c: weights in fp32 by the names and layouts of the model's own files, and the moments beside them;
// what lay where does not show.
pb_status pb_state_portable_save(pb_trainer *trainer, struct pb_checkpoint_writer *writer);
pb_status pb_state_portable_load(pb_trainer *trainer, const char *path);

// state_swap.c: everything as it is kept (state.safetensors, state.swap, and state.json that says what is where).
// `how` says how the swap file became the checkpoint's.
pb_status pb_state_swap_save(const pb_state_values *values, struct pb_checkpoint_writer *writer, pb_kept_as *how);
// *adopted: where the state lies as it did, the checkpoint's swap file is read as this run's, and nothing of it is
// copied.
pb_status pb_state_swap_load(const pb_state_values *values, const char *path, bool *adopted);

#endif
