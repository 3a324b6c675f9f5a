// A compiled step: a flat list of instructions over one slab, all offsets fixed. This format is all that the planner
// and the checker share.
#ifndef PB_PLAN_PROGRAM_H
#define PB_PLAN_PROGRAM_H

#include "graph/graph.h"

enum { PB_ALIGNMENT = 256 };  // of every offset, in bytes

typedef enum pb_insn_kind {
    PB_INSN_RUN,  // run graph node `node` on its operands
} pb_insn_kind;

typedef struct pb_operand {
    pb_vid value;     // PB_NONE where absent
    uint64_t offset;  // into the device slab
} pb_operand;

typedef struct pb_insn {
    pb_insn_kind kind;
    uint32_t node;
    pb_operand in[PB_MAX_INPUTS], out[PB_MAX_OUTPUTS];
    uint64_t workspace_offset, workspace_bytes;
} pb_insn;

typedef struct pb_program {
    pb_arena *arena;
    pb_insn *insns;
    uint32_t insn_count;
    uint64_t *home;             // per value: where inputs are uploaded to, outputs read from, persistent values live;
                                // UINT64_MAX for the others
    uint64_t slab_bytes;        // size of the device slab: the peak
    uint64_t persistent_bytes;  // its first part: what lives from step to step
    uint64_t peak_by_class[PB_CLASS_COUNT];  // bytes alive at the instant with the most
    uint64_t padding_bytes;                  // slab_bytes less what is alive at that instant
    uint64_t kept_activations;               // activations alive when the backward pass begins
    uint64_t lower_bound;                    // most bytes alive at any instant: no placement can do better
} pb_program;

void pb_program_destroy(pb_program *program);  // NULL is allowed

// Stable text, one line per instruction.
void pb_program_print(const pb_program *program, const pb_graph *graph, void (*line)(void *context, const char *text),
                      void *context);

#endif
