// Shared by store.c (opening, commits), transfer.c (reads and writes of extents), store_copy.c and store_renew.c.
#ifndef PB_OFFLOAD_STORE_INTERNAL_H
#define PB_OFFLOAD_STORE_INTERNAL_H

#include "offload/engine.h"
#include "offload/record.h"
#include "offload/swap_file.h"

enum { PB_STORE_MESSAGE = 512, PB_NO_SLOT = 2 };

typedef enum pb_extent_state {
    PB_EXTENT_EMPTY,
    PB_EXTENT_VALID,
    PB_EXTENT_BROKEN  // a write of it is under way or failed
} pb_extent_state;

typedef struct pb_extent {
    uint64_t offset;  // of slot 0; slot 1 lies behind it
    uint32_t capacity;
    uint8_t committed, current;  // slots: of the last commit (or PB_NO_SLOT), of the newest bytes
    pb_extent_state state;       // of the current slot
    bool in_old;                 // the current bytes lie in the file that was handed over last, and only there
    pb_entry entry[2];
    pb_ticket last;  // the newest transfer of it
} pb_extent;

typedef enum pb_operation_state {
    PB_OP_FREE,
    PB_OP_QUEUED,
    PB_OP_RUNNING,
    PB_OP_ARRIVED,  // read, and not yet verified
    PB_OP_FAILED    // until somebody is told
} pb_operation_state;

// A read or write of an extent.
typedef struct pb_operation {
    pb_operation_state state;
    bool write, failing, queued;  // queued: not fully issued
    pb_ticket ticket, after;      // after: what it waits for
    uint64_t order;               // in which it was given
    uint32_t extent;
    unsigned char *data;
    int fd;                     // the file
    uint64_t offset;            // in the file
    uint32_t issued;            // bytes given to the engine
    unsigned in_flight;         // requests
    pb_entry entry;             // of the bytes
    struct pb_operation *next;  // in the queue, or among those that arrived
    char message[PB_STORE_MESSAGE];
} pb_operation;

struct pb_store {
    pb_swap_file file;
    pb_swap_file old;  // handed over, and still read from; or none
    int handed;        // what was handed over last, by its name (O_PATH): what it is called now; -1: none
    char *directory;   // of the options, for a new file
    bool buffered;     // likewise
    pb_engine *engine;
    const pb_store_hook *hook;
    size_t extent_count;
    pb_extent *extents;
    unsigned slots;  // per extent
    uint32_t request_bytes;
    // Fixed pools. Ticket t is the operation t % operation_count.
    unsigned operation_count, request_count;
    pb_operation *operations;
    pb_request *requests, *free_requests;
    pb_operation *queue, **queue_end;
    pb_operation *arrived, **arrived_end;
    unsigned in_flight;
    uint64_t order;                 // of the newest operation
    uint64_t done, noticed;         // operations finished, those that wait_any has told of
    bool handed_over;               // to a checkpoint: read only
    bool lost;                      // requests that never came back
    char broken[PB_STORE_MESSAGE];  // why nothing goes any more, or ""
    // Commits.
    char run_id[PB_STORE_RUN_ID_MAX + 1];
    uint64_t layout;
    size_t record_room;
    void *record, *spare;  // buffers; of scratch `spare` is there once something was kept
    size_t spare_bytes;
    unsigned record_slot;  // of the newest record
    unsigned char *blob;
    char note[PB_STORE_MESSAGE];
    pb_store_info info;
};

// Waits for everything that is under way, whatever comes of it.
void pb_store_settle(pb_store *store);

#endif
