// fuzz: links=offload,base
// Any bytes as the commit record of a swap file; with an odd first byte the hash is put right, so that what lies behind
// it is reached. What is accepted points nowhere outside the file, and seals to the same bytes.
#include <stdlib.h>
#include <string.h>

#include "offload/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { EXTENTS = 3 };
static const uint32_t capacities[EXTENTS] = {4096, 65536, 12288};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const size_t room = pb_record_room(EXTENTS);
    if (size < 1 || size - 1 > room) return 0;
    unsigned char *record = calloc(1, room), *again = malloc(room);
    if (!record || !again) abort();
    memcpy(record, data + 1, size - 1);
    pb_record_head *head = pb_record_head_of(record);
    if (data[0] % 2 && head->extent_count == EXTENTS && head->blob_bytes <= PB_STORE_BLOB_MAX) pb_record_seal(record);
    memcpy(again, record, room);
    const char *fault = pb_record_check(record, "run", pb_record_layout(capacities, EXTENTS), capacities, EXTENTS);
    if (memcmp(record, again, room) != 0 || (fault && !fault[0])) abort();  // a check changes nothing
    if (!fault) {
        const pb_entry *entries = pb_record_entries(record);
        for (int i = 0; i < EXTENTS; i++)
            if (entries[i].bytes > capacities[i] || entries[i].slot > 1) abort();
        if ((unsigned char *)pb_record_blob(record) + head->blob_bytes > record + room || !head->generation) abort();
        if (pb_record_seal(again) > room || memcmp(record, again, room) != 0) abort();
    }
    free(record);
    free(again);
    return 0;
}
