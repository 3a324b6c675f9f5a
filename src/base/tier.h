// Where bytes can be, and what can work on them at the same time.
#ifndef PB_BASE_TIER_H
#define PB_BASE_TIER_H

typedef enum pb_tier { PB_TIER_DEVICE, PB_TIER_HOST, PB_TIER_NVME, PB_TIER_COUNT } pb_tier;

// A lane works through its instructions in order; lanes run beside one another. On COMPUTE, UPLOAD, DOWNLOAD and HOST
// an instruction begins when the one before it on the lane is complete. READ and WRITE only begin theirs in order:
// several may be under way, and they finish in any order.
typedef enum pb_lane {
    PB_LANE_COMPUTE,   // kernels on the device slab
    PB_LANE_UPLOAD,    // host slab to device slab
    PB_LANE_DOWNLOAD,  // device slab to host slab
    PB_LANE_HOST,      // AdamW on the host slab, by the host's processors
    PB_LANE_READ,      // NVMe to host slab
    PB_LANE_WRITE,     // host slab to NVMe
    PB_LANE_COUNT
} pb_lane;

#endif
