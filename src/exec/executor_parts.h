// Private to src/exec: the inside of a pb_executor.
#ifndef PB_EXEC_EXECUTOR_PARTS_H
#define PB_EXEC_EXECUTOR_PARTS_H

#include "exec/executor.h"
#include "exec/memory_parts.h"

// What the executor's thread has to do behind an instruction of a device lane.
enum { PB_RECORD = 1, PB_TELL_IO = 2 };

// Bytes of a slab that poison leaves alone (executor_stress.c).
typedef struct pb_kept {
    pb_tier tier;
    uint64_t begin, end;
} pb_kept;

// Kernels that follow one another on lane COMPUTE with no WAIT and no mark between them (executor_capture.c).
typedef struct pb_segment {
    uint32_t first;         // instruction; the others follow on the lane
    pb_captured *captured;  // NULL: they are issued one by one
} pb_segment;

struct pb_executor {
    const pb_graph *graph;
    const pb_program *program;
    pb_memory *memory, *own_memory;
    pb_kernel_args *args;           // by instruction, all pointers resolved
    pb_attr *attrs;                 // by instruction, of UPDATEs: their node's, and where they begin
    uint64_t *mark;                 // by instruction; see pb_io_job
    unsigned char *behind;          // by instruction: PB_RECORD, PB_TELL_IO
    uint64_t total[PB_LANE_COUNT];  // marks of a run
    uint32_t *list[PB_LANE_COUNT];  // instructions of each lane, WAITs among them
    uint32_t count[PB_LANE_COUNT];
    uint32_t issued[PB_LANE_COUNT];  // of a lane's list, in this run; not of the I/O lanes
    uint32_t now;                    // where the executor's thread is in the program
    uint32_t *first_reads;  // extents that the program reads before it writes them: they must have been written
    uint32_t first_read_count;
    bool has_run;  // once, with all of its lanes: a device has loaded every kernel's code
    bool filled;
    uint64_t filled_at;  // pb_memory.forgotten then
    pb_io_job job;
    pb_insn_times *times;
    pb_kept *kept;
    uint32_t kept_count;
    uint64_t stress;
    uint32_t *segment;  // by instruction: 1 + the segment that it is captured in, or 0; NULL before the capture
    pb_segment *segments;
    uint32_t segment_count;
    bool profiled;
    double seconds[PB_OP_COUNT];
    uint64_t runs[PB_OP_COUNT];
};

// Holds a program's instructions against its graph and the memory (executor_prepare.c), and fills in what a run needs.
pb_status pb_executor_prepare(pb_executor *executor);

// Lets the device capture what it can, behind the first run. Nothing where it offers no such thing, or refuses.
pb_status pb_executor_capture(pb_executor *executor);
void pb_executor_release_captured(pb_executor *executor);

// Fills with 0xff what no input and nothing that persists occupies.
void pb_executor_poison(pb_executor *executor);

static inline bool pb_is_io_lane(pb_lane lane) {
    return lane == PB_LANE_READ || lane == PB_LANE_WRITE;
}

#endif
