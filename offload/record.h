// The commit records: what the file holds, in two places that take turns.
#ifndef PB_OFFLOAD_RECORD_H
#define PB_OFFLOAD_RECORD_H

#include "offload/store.h"

// What was written to a slot, as it stands in the file.
typedef struct pb_entry {
    uint64_t hash[2];  // XXH3-128 of the bytes, low half first
    uint64_t owner, step, generation;
    uint32_t bytes;  // 0: nothing
    uint32_t slot;
} pb_entry;

typedef struct pb_record_head {
    uint64_t hash[2];  // XXH3-128 of the record from `magic` to its end
    char magic[8];
    uint64_t layout;  // pb_record_layout
    uint64_t generation, step;
    uint32_t extent_count, blob_bytes;
    char run_id[PB_STORE_RUN_ID_MAX + 1];
} pb_record_head;

// What of the file's shape a record depends on.
uint64_t pb_record_layout(const uint32_t *capacities, size_t count);
// The room for one record in the file, and for its buffer.
size_t pb_record_room(size_t count);

pb_record_head *pb_record_head_of(void *record);
pb_entry *pb_record_entries(void *record);
void *pb_record_blob(void *record);
// Puts the hash in; the bytes to write, a multiple of PB_STORE_BLOCK.
size_t pb_record_seal(void *record);
// Whether it is a record for `count` extents whose hash is right; whose, is not looked at.
bool pb_record_is_sealed(const void *record, size_t count);
// NULL, or what is wrong with it. Nothing of a record is believed before.
const char *pb_record_check(const void *record, const char *run_id, uint64_t layout, const uint32_t *capacities,
                            size_t count);

void pb_hash_bytes(const void *data, size_t bytes, uint64_t hash[2]);

#endif
