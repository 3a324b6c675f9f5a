#include "offload/record.h"

#include <string.h>
#include <xxhash.h>

_Static_assert(sizeof(pb_entry) == 48, "as it stands in the file");
_Static_assert(sizeof(pb_record_head) == 120, "as it stands in the file");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file's numbers are little endian");

static const char magic[8] = "PBSWAP1";

uint64_t pb_record_layout(const uint32_t *capacities, size_t count) {
    return XXH3_64bits(capacities, count * sizeof *capacities);
}

static size_t used(size_t count, size_t blob_bytes) {
    return sizeof(pb_record_head) + count * sizeof(pb_entry) + blob_bytes;
}

static size_t whole_blocks(size_t bytes) {
    return (bytes + PB_STORE_BLOCK - 1) / PB_STORE_BLOCK * PB_STORE_BLOCK;
}

size_t pb_record_room(size_t count) {
    return whole_blocks(used(count, PB_STORE_BLOB_MAX));
}

pb_record_head *pb_record_head_of(void *record) {
    return record;
}

pb_entry *pb_record_entries(void *record) {
    return (pb_entry *)((unsigned char *)record + sizeof(pb_record_head));
}

void *pb_record_blob(void *record) {
    return pb_record_entries(record) + pb_record_head_of(record)->extent_count;
}

static void hash_record(const void *record, uint64_t hash[2]) {
    const pb_record_head *head = record;
    const size_t skipped = sizeof head->hash;
    pb_hash_bytes((const unsigned char *)record + skipped, used(head->extent_count, head->blob_bytes) - skipped, hash);
}

size_t pb_record_seal(void *record) {
    pb_record_head *head = record;
    memcpy(head->magic, magic, sizeof magic);
    hash_record(record, head->hash);
    return whole_blocks(used(head->extent_count, head->blob_bytes));
}

bool pb_record_is_sealed(const void *record, size_t count) {
    const pb_record_head *head = record;
    uint64_t hash[2];
    if (memcmp(head->magic, magic, sizeof magic) != 0 || head->extent_count != count ||
        head->blob_bytes > PB_STORE_BLOB_MAX)
        return false;
    hash_record(record, hash);
    return hash[0] == head->hash[0] && hash[1] == head->hash[1];
}

const char *pb_record_check(const void *record, const char *run_id, uint64_t layout, const uint32_t *capacities,
                            size_t count) {
    const pb_record_head *head = record;
    const pb_entry *entries = (const pb_entry *)((const unsigned char *)record + sizeof *head);
    if (memcmp(head->magic, magic, sizeof magic) != 0) return "it holds no commit";
    if (strncmp(head->run_id, run_id, sizeof head->run_id) != 0) return "it is of another run";
    if (head->layout != layout || head->extent_count != count) return "its extents are others";
    if (head->generation == 0 || !pb_record_is_sealed(record, count)) return "its record is damaged";
    for (size_t i = 0; i < count; i++)
        if (entries[i].slot > 1 || entries[i].bytes > capacities[i] || entries[i].bytes % PB_STORE_BLOCK ||
            entries[i].generation > head->generation)
            return "its record is damaged";
    return NULL;
}
