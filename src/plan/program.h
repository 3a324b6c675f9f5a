// A compiled step: a flat list of instructions over a device slab, a host slab and the extents of an NVMe store, all
// offsets fixed. This format is all that planner, checker, simulator and executor share.
//
// Meaning. The list is in a valid sequential order: executed one after another, to completion each, the instructions
// compute what the graph says. Each belongs to a lane (base/tier.h), and lanes run beside one another; what one
// lane's instruction needs of another lane's, or what it must not overwrite yet, is ordered by WAITs, and by nothing
// else. "Complete" of an instruction means that it and everything before it on its lane has finished. Before the
// first instruction every lane is idle; after the last one the executor lets all lanes finish.
#ifndef PB_PLAN_PROGRAM_H
#define PB_PLAN_PROGRAM_H

#include "base/tier.h"
#include "graph/graph.h"

enum { PB_ALIGNMENT = 256 };          // of every offset in a slab, in bytes
enum { PB_EXTENT_ALIGNMENT = 4096 };  // of an extent's capacity and, for moves from and to NVMe, of the host offset

// Rounded up to a multiple.
static inline uint64_t pb_aligned(uint64_t bytes, uint64_t alignment) {
    return (bytes + alignment - 1) / alignment * alignment;
}

typedef enum pb_insn_kind {
    PB_INSN_RUN,     // run graph node `node` on its operands
    PB_INSN_UPDATE,  // run the adamw node `node` on elements [first, first + count) of its parameter
    PB_INSN_RECAST,  // make elements [first, first + count) of the 16-bit working copy that adamw node `node` makes
                     // once more, out[0]: in[0] is the new fp32 master, or the working copy itself in another place
    PB_INSN_FETCH,   // copy towards the device: NVMe to host (lane READ) or host to device (UPLOAD)
    PB_INSN_EVICT,   // copy away from it: device to host (DOWNLOAD) or host to NVMe (WRITE). The source stays intact
    PB_INSN_WAIT,    // nothing that follows on `lane` begins before instruction `on` is complete
} pb_insn_kind;

// Of a RUN, UPDATE or RECAST: in the device slab on lane COMPUTE, in the host slab on lane HOST (no RECAST). The
// operands of an UPDATE or RECAST that have the parameter's shape (gradient, master, moments, working copy) say where
// element `first` is.
typedef struct pb_operand {
    pb_vid value;  // PB_NONE where absent
    uint64_t offset;
} pb_operand;

typedef struct pb_insn {
    pb_insn_kind kind;
    pb_lane lane;
    // RUN, UPDATE, RECAST
    uint32_t node;
    pb_operand in[PB_MAX_INPUTS], out[PB_MAX_OUTPUTS];
    uint64_t workspace_offset, workspace_bytes;  // in the tier of the operands
    int64_t first, count;                        // UPDATE, RECAST: elements
    // FETCH, EVICT. An offset into a slab, or 0 where that side is NVMe: extents are always moved from their beginning.
    pb_tier from_tier, to_tier;
    uint64_t from, to, bytes;
    uint32_t extent;  // of the NVMe side. A read takes exactly the bytes that were written last
    // WAIT
    uint32_t on;  // an earlier instruction, no WAIT, on another lane or on this one (READ, WRITE)
} pb_insn;

// Whether a kernel runs, and which.
static inline bool pb_insn_is_op(const pb_insn *insn) {
    return insn->kind == PB_INSN_RUN || insn->kind == PB_INSN_UPDATE || insn->kind == PB_INSN_RECAST;
}
static inline pb_opcode pb_insn_op(const pb_graph *g, const pb_insn *insn) {
    return insn->kind == PB_INSN_RECAST ? PB_OP_CAST : g->nodes[insn->node].op;
}

// Whether the working copy that a node makes is its new master, rounded to nearest, and nothing else: only then may a
// RECAST make it again. (A split master is no number by itself, and one in 16 bits is the working copy.)
static inline bool pb_can_recast(const pb_graph *g, const pb_node *node) {
    const pb_vid master = node->out[PB_ADAMW_NEW_MASTER], work = node->out[PB_ADAMW_NEW_WORK];
    return node->op == PB_OP_ADAMW && master != PB_NONE && work != PB_NONE && node->in[PB_ADAMW_WORK] == PB_NONE &&
           g->values[master].dtype == PB_F32 && (g->values[work].dtype == PB_F16 || g->values[work].dtype == PB_BF16);
}

// When an instruction ran, in seconds from the beginning of the program: predicted or measured.
typedef struct pb_insn_times {
    double begin, end;
} pb_insn_times;

// Where bytes [begin, begin + bytes) of a persistent value are between two steps.
typedef struct pb_piece {
    uint64_t begin, bytes;
    pb_tier tier;
    uint32_t extent;  // NVMe
    uint64_t offset;  // into the slab or the extent
} pb_piece;

enum { PB_LINK_UPLOAD, PB_LINK_DOWNLOAD, PB_LINK_NVME_READ, PB_LINK_NVME_WRITE, PB_LINK_COUNT };

typedef struct pb_program {
    pb_arena *arena;
    pb_insn *insns;
    uint32_t insn_count;
    uint64_t *home;  // per value: where on the device inputs are uploaded to and outputs are read from; UINT64_MAX for
                     // the others
    // Persistent values. Those of value v (a root, see pb_graph_root) are pieces[first_piece[v] .. first_piece[v + 1]),
    // ascending and without gaps. All programs of a run agree about them.
    pb_piece *pieces;
    uint32_t *first_piece;
    // The NVMe store. Extents that pieces lie in come first and are the same in all programs of a run.
    uint64_t *extent_bytes;  // capacity, a multiple of PB_EXTENT_ALIGNMENT
    uint32_t extent_count;
    uint64_t tier_bytes[PB_TIER_COUNT];  // sizes of the slabs and of all extents: the peaks
    // Reports.
    uint64_t peak_by_class[PB_TIER_COUNT][PB_CLASS_COUNT];  // bytes alive at the tier's fullest instant
    uint64_t padding_bytes[PB_TIER_COUNT];                  // the tier's size less what is alive at that instant
    uint64_t kept_activations;                              // activations alive when the backward pass begins
    uint64_t lower_bound;                                   // most device bytes alive at any instant of this schedule
    uint64_t moved[PB_LINK_COUNT];                          // bytes per run of the program
    double seconds;                                         // predicted, on the machine that it was planned for
    const struct pb_chunking *layout;  // the planner's own: what it needs to plan another program of the same run
} pb_program;

void pb_program_destroy(pb_program *program);  // NULL is allowed

// The pieces of the value that v is a version of.
static inline const pb_piece *pb_program_pieces(const pb_program *p, const pb_graph *g, pb_vid v, uint32_t *count) {
    const pb_vid root = pb_graph_root(g, v);
    *count = p->first_piece[root + 1] - p->first_piece[root];
    return p->pieces + p->first_piece[root];
}

// Stable text, one line per instruction.
void pb_program_print(const pb_program *program, const pb_graph *graph, void (*line)(void *context, const char *text),
                      void *context);

#endif
