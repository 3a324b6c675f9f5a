// A small program over all tiers and lanes, built by hand: a parameter and its moments come from NVMe, are updated in
// two slices, and go back; beside that an extent without pieces is written and read.
#ifndef PB_TESTS_PLAN_SUPPORT_HAND_BUILT_H
#define PB_TESTS_PLAN_SUPPORT_HAND_BUILT_H

#include "plan/plan.h"

enum { INSNS = 40, ELEMENTS = 256, CHUNK = 3 * 4 * ELEMENTS };

// A parameter's update, and a node whose output nobody reads.
typedef struct support_parts {
    pb_graph *g;
    pb_vid gradient, norm, hyper, control, master, m, v, wide, narrow;
    uint32_t control_node, update_node, lonely_node;
} support_parts;

// The device slab, in bytes; `second` has room for another copy of the chunk.
enum {
    GRADIENT = 0,
    NORM = 1024,
    HYPER = 1280,
    CONTROL = 1536,
    WIDE = 1792,
    NARROW = 2816,
    FIRST = 3328,
    SECOND = FIRST + CHUNK,
    DEVICE = SECOND + CHUNK
};
// The host slab: the chunk, and another place for one.
enum { STAGE = 0, SPARE = 4096, HOST = 8192 };

typedef struct support_bench {
    support_parts p;
    pb_program program;
    pb_insn insns[INSNS];
    pb_piece pieces[4];
    uint32_t first_piece[64];
    uint64_t home[64], extent_bytes[3];
    pb_plan_request request;
} support_bench;

// Indices of the instructions, to be tampered with.
enum {
    LONELY,
    TO_CONTROL,
    READ_CHUNK,
    UPLOAD_WAITS,
    UPLOAD_CHUNK,
    COMPUTE_WAITS,
    UPDATE_LOW,
    UPDATE_HIGH,
    DOWNLOAD_WAITS,
    DOWNLOAD_CHUNK,
    WRITE_WAITS,
    WRITE_CHUNK,
    WRITE_OTHER,
    WRITE_WAITS_AGAIN,
    WRITE_OTHER_AGAIN,
    READ_WAITS,
    READ_OTHER,
    READ_WAITS_AGAIN,
    READ_OTHER_AGAIN,
    COUNT
};

// The caller destroys p.g.
void support_make_program(support_bench *b);

// Add an instruction and return its index (of a WAIT: nothing).
uint32_t support_move(support_bench *b, pb_lane lane, uint64_t from, uint64_t to, uint64_t bytes, uint32_t extent);
void support_wait(support_bench *b, pb_lane lane, uint32_t on);
// Of elements [first, first + count) of the chunk's copy at `chunk` on the device.
uint32_t support_update(support_bench *b, uint64_t chunk, int64_t first, int64_t count);

#endif
