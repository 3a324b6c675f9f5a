// Checkpoints that survive whatever befalls the machine while they are written. One is a folder
// OUTPUT_DIR/checkpoint-N: any files, and manifest.json with the size and XXH3-128 of each. The protocol, in order:
//
//   the disk has room; a folder under a temporary name; every file written and fsynced; manifest.json, fsynced; the
//   folders fsynced; renamed; the parent fsynced; read back and compared with the manifest; only then are the oldest
//   ones deleted.
//
// So at every instant there is a whole checkpoint N or N - 1, or there was none.
#ifndef PB_TRAIN_CHECKPOINT_H
#define PB_TRAIN_CHECKPOINT_H

#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

// --- Writing ---
typedef struct pb_checkpoint_writer pb_checkpoint_writer;

// `bytes`: about what will be written, for the check of the disk's room.
pb_status pb_checkpoint_begin(const char *output_dir, int64_t step, uint64_t bytes, pb_checkpoint_writer **writer);
// Where a file of the checkpoint ("unet/config.json") is to be written by someone who fsyncs it; its folder is made.
// The text lives as long as the writer. NULL, with an error recorded, where the folder cannot be made.
const char *pb_checkpoint_add(pb_checkpoint_writer *writer, const char *name);
// The same for a file of extents, whose hashes the file `map` ("state.json", train/saved_state.h) has: it is verified
// by them, and by whoever commits it not at all, who has read them back before.
const char *pb_checkpoint_add_extents(pb_checkpoint_writer *writer, const char *name, const char *map);
// After the last file. A checkpoint of the same name, left by an earlier run, is replaced.
pb_status pb_checkpoint_commit(pb_checkpoint_writer *writer);
// Bytes of its files, those of files of extents aside. After the commit.
uint64_t pb_checkpoint_bytes(const pb_checkpoint_writer *writer);
// Frees; removes what was not committed. NULL is allowed.
void pb_checkpoint_end(pb_checkpoint_writer *writer);

// --- Reading ---
typedef struct pb_checkpoint_entry {
    const char *path;  // OUTPUT_DIR/checkpoint-N
    int64_t step;
    int64_t run;  // when the run that wrote it began, of trainer.json; 0 where that cannot be read
} pb_checkpoint_entry;

// The newest first: by run, then by step. An output_dir that does not exist has none.
pb_status pb_checkpoint_list(pb_arena *arena, const char *output_dir, pb_checkpoint_entry **entries, size_t *count);
// Whether every file of the manifest is there with its size and hash. PB_ERR_FORMAT naming the one that is not.
pb_status pb_checkpoint_verify(const char *path);
// The same but for the hashes of large files: takes no time.
pb_status pb_checkpoint_look(const char *path);
// Deletes all but the newest `keep` (0: keeps all), and what a kill left half written.
pb_status pb_checkpoint_prune(const char *output_dir, int64_t keep);

#endif
