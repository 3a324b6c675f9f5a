// What is known of a program before it runs: arguments of kernels, marks, lists of the I/O lanes. Also a last look at
// each instruction: pb_program_check proves a program; this keeps a wrong one from leaving the slabs.
#include <stdlib.h>

#include "exec/executor_parts.h"

static pb_status refuse(uint32_t i, const char *what) {
    return pb_error(PB_ERR_INTERNAL, "instruction %u of the program: %s", i, what);
}

static bool fits(const pb_memory *m, pb_tier tier, uint64_t offset, uint64_t bytes) {
    return m->slab[tier] && offset <= m->bytes[tier] && bytes <= m->bytes[tier] - offset;
}

static pb_status point(const pb_executor *e, uint32_t i, pb_operand operand, pb_tier tier, pb_tensor *tensor) {
    if (operand.value == PB_NONE) return PB_OK;
    const uint64_t bytes = (uint64_t)pb_shape_count(tensor->shape) * pb_dtype_size(tensor->dtype);
    if (!fits(e->memory, tier, operand.offset, bytes)) return refuse(i, "an operand lies outside its slab");
    tensor->data = e->memory->slab[tier] + operand.offset;
    return PB_OK;
}

// An UPDATE sees the tensors of its parameter's shape as `count` elements from `first` on, and of scales those that
// belong to them.
static pb_status slice(pb_executor *e, uint32_t i, pb_opcode op, pb_kernel_args *args) {
    const pb_insn *insn = &e->program->insns[i];
    if (op != PB_OP_ADAMW) return refuse(i, "UPDATE of a node that is no adamw");
    const int64_t elements = pb_shape_count(args->in[PB_ADAMW_MASTER].shape);
    if (insn->first < 0 || insn->count < 1 || insn->first > elements || insn->count > elements - insn->first)
        return refuse(i, "UPDATE of elements that are not there");
    for (int k = 0; k < PB_MAX_INPUTS + PB_MAX_OUTPUTS; k++) {
        pb_tensor *t = k < PB_MAX_INPUTS ? &args->in[k] : &args->out[k - PB_MAX_INPUTS];
        if (k == PB_ADAMW_CONTROL || k == PB_ADAMW_HYPER || !t->shape.rank) continue;
        const int64_t entries = pb_shape_count(t->shape);
        if (entries != elements && insn->first % PB_STATE_BLOCK)
            return refuse(i, "UPDATE from within a block of states");
        t->shape = PB_SHAPE1(pb_adamw_entries(entries, elements, insn->count));
    }
    e->attrs[i] = *args->attr;
    e->attrs[i].adamw.first = insn->first;
    args->attr = &e->attrs[i];
    return PB_OK;
}

// A RECAST is a cast of elements [first, first + count) of a master, or a copy of a working copy's.
static pb_status recast(pb_executor *e, uint32_t i, const pb_node *node, pb_kernel_args *args) {
    static const pb_attr none;
    const pb_insn *insn = &e->program->insns[i];
    if (insn->lane != PB_LANE_COMPUTE || !pb_can_recast(e->graph, node) ||
        insn->out[0].value != node->out[PB_ADAMW_NEW_WORK] ||
        (insn->in[0].value != node->out[PB_ADAMW_NEW_MASTER] && insn->in[0].value != insn->out[0].value))
        return refuse(i, "RECAST of what is no copy of a master");
    const pb_value *from = &e->graph->values[insn->in[0].value], *work = &e->graph->values[insn->out[0].value];
    const int64_t elements = pb_shape_count(from->shape);
    if (insn->first < 0 || insn->count < 1 || insn->first > elements || insn->count > elements - insn->first)
        return refuse(i, "RECAST of elements that are not there");
    e->attrs[i] = none;
    e->attrs[i].cast.dtype = work->dtype;
    *args = (pb_kernel_args){.attr = &e->attrs[i]};
    args->in[0] = (pb_tensor){.dtype = from->dtype, .shape = PB_SHAPE1(insn->count)};
    args->out[0] = (pb_tensor){.dtype = work->dtype, .shape = PB_SHAPE1(insn->count)};
    return PB_OK;
}

static pb_status prepare_kernel(pb_executor *e, uint32_t i) {
    const pb_insn *insn = &e->program->insns[i];
    pb_kernel_args *args = &e->args[i];
    if (insn->node >= e->graph->node_count) return refuse(i, "there is no such node");
    if (insn->lane != PB_LANE_COMPUTE && insn->lane != PB_LANE_HOST) return refuse(i, "a kernel on a lane for copies");
    const pb_node *node = &e->graph->nodes[insn->node];
    if (insn->lane == PB_LANE_HOST && node->op != PB_OP_ADAMW) return refuse(i, "an op that is not for the host");
    const pb_tier tier = insn->lane == PB_LANE_HOST ? PB_TIER_HOST : PB_TIER_DEVICE;
    if (insn->kind == PB_INSN_RECAST)
        PB_RETURN_IF(recast(e, i, node, args));
    else
        pb_node_kernel_args(e->graph, node, args);
    if (insn->kind == PB_INSN_UPDATE) PB_RETURN_IF(slice(e, i, node->op, args));
    for (int k = 0; k < PB_MAX_INPUTS; k++) PB_RETURN_IF(point(e, i, insn->in[k], tier, &args->in[k]));
    for (int k = 0; k < PB_MAX_OUTPUTS; k++) PB_RETURN_IF(point(e, i, insn->out[k], tier, &args->out[k]));
    if (insn->workspace_bytes && !fits(e->memory, tier, insn->workspace_offset, insn->workspace_bytes))
        return refuse(i, "the workspace lies outside its slab");
    args->workspace = insn->workspace_bytes ? e->memory->slab[tier] + insn->workspace_offset : NULL;
    args->workspace_bytes = insn->workspace_bytes;
    const pb_device_calls *calls = e->memory->calls;
    return calls->prepare ? calls->prepare(e->memory->device, insn->lane, pb_insn_op(e->graph, insn), args) : PB_OK;
}

static pb_status check_copy(const pb_executor *e, uint32_t i) {
    static const struct {
        pb_insn_kind kind;
        pb_tier from, to;
    } lanes[PB_LANE_COUNT] = {
        [PB_LANE_UPLOAD] = {PB_INSN_FETCH, PB_TIER_HOST, PB_TIER_DEVICE},
        [PB_LANE_DOWNLOAD] = {PB_INSN_EVICT, PB_TIER_DEVICE, PB_TIER_HOST},
        [PB_LANE_READ] = {PB_INSN_FETCH, PB_TIER_NVME, PB_TIER_HOST},
        [PB_LANE_WRITE] = {PB_INSN_EVICT, PB_TIER_HOST, PB_TIER_NVME},
    };
    const pb_insn *insn = &e->program->insns[i];
    const pb_memory *m = e->memory;
    if (insn->kind != lanes[insn->lane].kind || insn->from_tier != lanes[insn->lane].from ||
        insn->to_tier != lanes[insn->lane].to)
        return refuse(i, "a copy on a lane that does not go that way");
    if (!insn->bytes) return refuse(i, "a copy of nothing");
    if (insn->from_tier != PB_TIER_NVME && !fits(m, insn->from_tier, insn->from, insn->bytes))
        return refuse(i, "a copy from outside its slab");
    if (insn->to_tier != PB_TIER_NVME && !fits(m, insn->to_tier, insn->to, insn->bytes))
        return refuse(i, "a copy to outside its slab");
    if (!pb_is_io_lane(insn->lane)) return PB_OK;
    const uint64_t offset = insn->lane == PB_LANE_READ ? insn->to : insn->from;
    if (!m->store || insn->extent >= m->extent_count) return refuse(i, "there is no such extent");
    if (offset % PB_EXTENT_ALIGNMENT || insn->bytes % PB_EXTENT_ALIGNMENT ||
        insn->bytes > e->program->extent_bytes[insn->extent])
        return refuse(i, "not in whole blocks, or more than the extent holds");
    return PB_OK;
}

static pb_status check_wait(const pb_executor *e, uint32_t i) {
    const pb_insn *insn = &e->program->insns[i];
    if (insn->on >= i || e->program->insns[insn->on].kind == PB_INSN_WAIT)
        return refuse(i, "WAIT for what is no earlier instruction");
    return PB_OK;
}

static pb_status check_insns(pb_executor *e) {
    for (uint32_t i = 0; i < e->program->insn_count; i++) {
        const pb_insn *insn = &e->program->insns[i];
        if ((unsigned)insn->lane >= PB_LANE_COUNT) return refuse(i, "there is no such lane");
        switch (insn->kind) {
        case PB_INSN_RUN:
        case PB_INSN_RECAST:
        case PB_INSN_UPDATE: PB_RETURN_IF(prepare_kernel(e, i)); break;
        case PB_INSN_FETCH:
        case PB_INSN_EVICT: PB_RETURN_IF(check_copy(e, i)); break;
        case PB_INSN_WAIT: PB_RETURN_IF(check_wait(e, i)); break;
        default: return refuse(i, "there is no such kind");
        }
    }
    return PB_OK;
}

// A mark behind what some WAIT on another lane names; READ and WRITE have one behind each transfer.
static void number_marks(pb_executor *e) {
    const pb_insn *insns = e->program->insns;
    for (uint32_t i = 0; i < e->program->insn_count; i++) {
        if (insns[i].kind != PB_INSN_WAIT || insns[insns[i].on].lane == insns[i].lane) continue;
        e->behind[insns[i].on] |= PB_RECORD | (pb_is_io_lane(insns[i].lane) ? PB_TELL_IO : 0);
    }
    for (uint32_t i = 0; i < e->program->insn_count; i++) {
        const pb_lane lane = insns[i].lane;
        e->list[lane][e->count[lane]++] = i;
        if (insns[i].kind == PB_INSN_WAIT) continue;
        if (pb_is_io_lane(lane) || e->behind[i] & PB_RECORD) e->mark[i] = ++e->total[lane];
    }
}

// What the extents of persistent pieces have to hold at first, and which of them have to hold anything: those that the
// program reads before it writes them.
static pb_status find_contents(pb_executor *e) {
    const pb_program *p = e->program;
    uint32_t *const content = e->memory->content;
    bool *seen = calloc((size_t)p->extent_count + 1, sizeof *seen);
    uint64_t *wanted = calloc((size_t)p->extent_count + 1, sizeof *wanted);
    pb_status status = PB_OK;
    if (!seen || !wanted) PB_FAIL(PB_ERR_MEMORY, "no memory for an executor");
    for (uint32_t i = 0; i < p->insn_count; i++) {
        const pb_insn *insn = &p->insns[i];
        if (insn->kind == PB_INSN_WAIT || !pb_is_io_lane(insn->lane) || seen[insn->extent]) continue;
        seen[insn->extent] = true;
        wanted[insn->extent] = insn->bytes;
        if (insn->lane == PB_LANE_READ) e->first_reads[e->first_read_count++] = insn->extent;
    }
    for (uint32_t k = 0; k < p->first_piece[e->graph->value_count]; k++) {
        const pb_piece *piece = &p->pieces[k];
        if (piece->tier != PB_TIER_NVME) {
            if (!fits(e->memory, piece->tier, piece->offset, piece->bytes))
                PB_FAIL(PB_ERR_INTERNAL, "piece %u of the program lies outside its slab", k);
            continue;
        }
        if (piece->extent >= p->extent_count || piece->bytes > p->extent_bytes[piece->extent] ||
            piece->offset > p->extent_bytes[piece->extent] - piece->bytes)
            PB_FAIL(PB_ERR_INTERNAL, "piece %u of the program lies outside its extent", k);
        if (!seen[piece->extent]) wanted[piece->extent] = p->extent_bytes[piece->extent];
    }
    for (uint32_t x = 0; x < p->extent_count; x++) {
        if (seen[x] || wanted[x]) {
            if (!content[x]) content[x] = (uint32_t)wanted[x];
        }
    }
fail:
    free(seen);
    free(wanted);
    return status;
}

pb_status pb_executor_prepare(pb_executor *e) {
    const pb_program *p = e->program;
    for (int t = 0; t < PB_TIER_COUNT; t++)
        if (p->tier_bytes[t] > e->memory->bytes[t] && t != PB_TIER_NVME)
            return pb_error(PB_ERR_INTERNAL, "the shared memory is smaller than the program");
    if (p->extent_count > e->memory->extent_count)
        return pb_error(PB_ERR_INTERNAL, "the shared memory has fewer extents than the program");
    const size_t n = (size_t)p->insn_count + 1;
    e->args = calloc(n, sizeof *e->args);
    e->attrs = calloc(n, sizeof *e->attrs);
    e->mark = calloc(n, sizeof *e->mark);
    e->behind = calloc(n, sizeof *e->behind);
    e->first_reads = calloc((size_t)p->extent_count + 1, sizeof *e->first_reads);
    bool lists = true;
    for (int l = 0; l < PB_LANE_COUNT; l++) lists = (e->list[l] = calloc(n, sizeof **e->list)) && lists;
    if (!e->args || !e->attrs || !e->mark || !e->behind || !e->first_reads || !lists)
        return pb_error(PB_ERR_MEMORY, "no memory for an executor");
    PB_RETURN_IF(check_insns(e));
    number_marks(e);
    PB_RETURN_IF(find_contents(e));
    e->job = (pb_io_job){.insns = p->insns, .mark = e->mark};
    for (int l = 0; l < 2; l++) {
        const pb_lane lane = l ? PB_LANE_WRITE : PB_LANE_READ;
        e->job.list[l] = e->list[lane];
        e->job.count[l] = e->count[lane];
        e->job.total[l] = e->total[lane];
    }
    return PB_OK;
}
