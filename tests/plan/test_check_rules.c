// test: links=exec,ref,plan,graph,base
// The checker's rules one by one: a small program over all tiers and lanes, in which one thing at a time is wrong.
#include "check.h"
#include "plan/support_hand_built.h"

// Takes the effect of an instruction away without renumbering: a WAIT on the first instruction, on another lane.
static void forget(support_bench *b, int at) {
    b->insns[at] = (pb_insn){.kind = PB_INSN_WAIT, .lane = PB_LANE_HOST, .on = 0};
}

static void lose_upload_wait(support_bench *b) {
    forget(b, UPLOAD_WAITS);
}
static void lose_compute_wait(support_bench *b) {
    forget(b, COMPUTE_WAITS);
}
static void lose_download_wait(support_bench *b) {
    forget(b, DOWNLOAD_WAITS);
}
static void wait_for_one_slice_only(support_bench *b) {
    b->insns[DOWNLOAD_WAITS].on = UPDATE_LOW;
}
static void lose_write_wait(support_bench *b) {
    forget(b, WRITE_WAITS);
}
static void lose_wait_between_writes(support_bench *b) {
    forget(b, WRITE_WAITS_AGAIN);
}
static void lose_read_wait(support_bench *b) {
    forget(b, READ_WAITS);
}
static void lose_wait_between_reads(support_bench *b) {
    forget(b, READ_WAITS_AGAIN);
}
static void wait_for_later(support_bench *b) {
    b->insns[UPLOAD_WAITS].on = UPDATE_LOW;
}
static void wait_for_a_wait(support_bench *b) {
    b->insns[COMPUTE_WAITS].on = UPLOAD_WAITS;
}
static void wait_for_itself(support_bench *b) {
    b->insns[COMPUTE_WAITS].on = TO_CONTROL;
}
static void wait_more(support_bench *b) {
    support_wait(b, PB_LANE_HOST, READ_OTHER);
}
// The upload waits for what knows the read complete.
static void wait_in_a_roundabout_way(support_bench *b) {
    b->program.insn_count = UPLOAD_WAITS;
    support_wait(b, PB_LANE_WRITE, READ_CHUNK);
    const uint32_t other = support_move(b, PB_LANE_WRITE, STAGE, 0, 4096, 1);
    support_wait(b, PB_LANE_UPLOAD, other);
    support_wait(b, PB_LANE_COMPUTE, support_move(b, PB_LANE_UPLOAD, STAGE, FIRST, CHUNK, 0));
    support_wait(b, PB_LANE_DOWNLOAD, support_update(b, FIRST, 0, 256));
    support_wait(b, PB_LANE_WRITE, support_move(b, PB_LANE_DOWNLOAD, FIRST, STAGE, CHUNK, 0));
    const uint32_t last = support_move(b, PB_LANE_WRITE, STAGE, 0, 4096, 0);
    memset(b->program.moved, 0, sizeof b->program.moved);
    for (uint32_t i = 0; i <= last; i++)
        if (b->insns[i].bytes)
            b->program.moved[b->insns[i].lane == PB_LANE_UPLOAD     ? PB_LINK_UPLOAD
                             : b->insns[i].lane == PB_LANE_DOWNLOAD ? PB_LINK_DOWNLOAD
                             : b->insns[i].lane == PB_LANE_READ     ? PB_LINK_NVME_READ
                                                                    : PB_LINK_NVME_WRITE] += b->insns[i].bytes;
}
static void read_too_little(support_bench *b) {
    b->insns[READ_OTHER].bytes = b->insns[READ_OTHER_AGAIN].bytes = 2048;
    b->program.moved[PB_LINK_NVME_READ] -= 2048;
}
static void read_what_was_not_written(support_bench *b) {
    b->insns[READ_CHUNK].extent = 1;
}
static void write_a_part_only(support_bench *b) {
    b->insns[WRITE_CHUNK].bytes = 3072;
    b->program.moved[PB_LINK_NVME_WRITE] -= 1024;
}
static void write_past_the_extent(support_bench *b) {
    b->insns[WRITE_OTHER].bytes = 4100;
}
static void move_a_missing_extent(support_bench *b) {
    b->insns[WRITE_OTHER].extent = 2;
}
static void move_from_the_middle(support_bench *b) {
    b->insns[READ_CHUNK].from = 256;
}
static void misalign_a_read(support_bench *b) {
    b->insns[READ_CHUNK].to = 256;
}
static void misalign_an_upload(support_bench *b) {
    b->insns[UPLOAD_CHUNK].to = FIRST + 64;
}
static void upload_past_the_end(support_bench *b) {
    b->insns[UPLOAD_CHUNK].to = DEVICE - 256;
}
static void upload_from_past_the_end(support_bench *b) {
    b->insns[UPLOAD_CHUNK].from = HOST - 256;
}
// The store moves whole blocks, so the last one must be there.
static void cut_off_the_last_block(support_bench *b) {
    b->program.tier_bytes[PB_TIER_HOST] = SPARE + 3072;
}
static void upload_by_the_wrong_lane(support_bench *b) {
    b->insns[UPLOAD_CHUNK].lane = PB_LANE_DOWNLOAD;
}
static void upload_from_nvme(support_bench *b) {
    b->insns[UPLOAD_CHUNK].from_tier = PB_TIER_NVME;
}
static void upload_nothing(support_bench *b) {
    b->insns[UPLOAD_CHUNK].bytes = 0;
}
static void upload_too_little(support_bench *b) {
    b->insns[UPLOAD_CHUNK].bytes -= 4;
    b->program.moved[PB_LINK_UPLOAD] -= 4;
}
static void miscount_moves(support_bench *b) {
    b->program.moved[PB_LINK_UPLOAD]++;
}
static void run_on_a_lane_for_moves(support_bench *b) {
    b->insns[TO_CONTROL].lane = PB_LANE_UPLOAD;
}
static void run_on_the_host(support_bench *b) {
    b->insns[TO_CONTROL].lane = PB_LANE_HOST;
}
static void run_on_no_lane(support_bench *b) {
    b->insns[TO_CONTROL].lane = PB_LANE_COUNT;
}
static void be_of_no_kind(support_bench *b) {
    b->insns[TO_CONTROL].kind = (pb_insn_kind)9;
}
static void run_a_missing_node(support_bench *b) {
    b->insns[TO_CONTROL].node = 3;
}
static void run_twice(support_bench *b) {
    b->insns[b->program.insn_count++] = b->insns[LONELY];
}
static void never_run(support_bench *b) {
    b->insns[LONELY] = b->insns[TO_CONTROL];
    forget(b, TO_CONTROL);
    b->insns[TO_CONTROL].on = LONELY;
}
static void update_no_adamw(support_bench *b) {
    b->insns[LONELY].kind = PB_INSN_UPDATE;
    b->insns[LONELY].count = 1;
}
static void update_after_a_run(support_bench *b) {
    b->insns[UPDATE_LOW].kind = PB_INSN_RUN;
}
static void update_past_the_end(support_bench *b) {
    b->insns[UPDATE_HIGH].count++;
}
static void update_before_the_beginning(support_bench *b) {
    b->insns[UPDATE_LOW].first = -1;
}
static void update_nothing(support_bench *b) {
    b->insns[UPDATE_LOW].count = 0;
}
static void leave_elements_out(support_bench *b) {
    b->insns[UPDATE_LOW].count = 64;
}
static void update_other_elements(support_bench *b) {
    b->insns[UPDATE_HIGH].first = 64;
}
// On a second copy, which nobody needs: the contents are right, but the work is done twice.
static void update_elements_twice(support_bench *b) {
    pb_program *p = &b->program;
    const pb_insn high = b->insns[UPDATE_HIGH];
    p->insn_count = COMPUTE_WAITS;
    support_wait(b, PB_LANE_COMPUTE, support_move(b, PB_LANE_UPLOAD, STAGE, SECOND, CHUNK, 0));
    support_update(b, SECOND, 0, 64);
    support_update(b, FIRST, 0, 128);
    b->insns[p->insn_count++] = high;
    support_wait(b, PB_LANE_DOWNLOAD, p->insn_count - 1);
    support_wait(b, PB_LANE_WRITE, support_move(b, PB_LANE_DOWNLOAD, FIRST, STAGE, CHUNK, 0));
    p->moved[PB_LINK_DOWNLOAD] -= CHUNK;
    support_move(b, PB_LANE_WRITE, STAGE, 0, 4096, 0);
    p->moved[PB_LINK_NVME_WRITE] = p->moved[PB_LINK_NVME_READ] = 4096;
}
static void misalign_an_update(support_bench *b) {
    b->insns[UPDATE_LOW].in[0].offset = 32;
}
static void run_on_the_wrong_value(support_bench *b) {
    b->insns[TO_CONTROL].in[0].value = b->p.hyper;
}
static void write_the_wrong_value(support_bench *b) {
    b->insns[TO_CONTROL].out[0].value = b->p.narrow;
}
static void run_past_the_end(support_bench *b) {
    b->insns[LONELY].out[0].offset = DEVICE - 256;
}
static void misalign_a_run(support_bench *b) {
    b->insns[LONELY].out[0].offset += 64;
}
static void overwrite_an_input(support_bench *b) {
    b->insns[LONELY].out[0].offset = WIDE;
}
static void overwrite_another_value(support_bench *b) {
    b->insns[LONELY].out[0].offset = GRADIENT;
}
static void overlap_outputs(support_bench *b) {
    b->insns[UPDATE_LOW].out[0].offset = b->insns[UPDATE_LOW].out[1].offset = SECOND;
}
static void put_scratch(support_bench *b, uint64_t offset) {
    b->insns[LONELY].workspace_offset = offset;
    b->insns[LONELY].workspace_bytes = 256;
}
static void scratch_over_an_input(support_bench *b) {
    put_scratch(b, WIDE);
}
static void scratch_over_an_output(support_bench *b) {
    put_scratch(b, NARROW);
}
static void scratch_over_another_value(support_bench *b) {
    put_scratch(b, GRADIENT);
}
static void scratch_past_the_end(support_bench *b) {
    put_scratch(b, DEVICE);
}
static void scratch_in_the_way_of_a_move(support_bench *b) {
    b->insns[COMPUTE_WAITS] = b->insns[LONELY];
    b->insns[COMPUTE_WAITS].workspace_offset = FIRST;
    b->insns[COMPUTE_WAITS].workspace_bytes = 256;
    b->insns[LONELY] = b->insns[TO_CONTROL];
    forget(b, TO_CONTROL);
}
static uint64_t some_scratch(const pb_kernel_args *args) {
    (void)args;
    return 512;
}
static pb_kernel_workspace workspaces[PB_OP_COUNT] = {[PB_OP_GEGLU] = some_scratch};
static void scratch_too_small(support_bench *b) {
    b->request.workspaces = workspaces;
    put_scratch(b, SECOND);
}
static void scratch_enough(support_bench *b) {
    scratch_too_small(b);
    b->insns[LONELY].workspace_bytes = 512;
}
static void in_place_elsewhere(support_bench *b) {
    b->insns[UPDATE_LOW].out[0].offset += 256;
}
static void no_device_budget(support_bench *b) {
    b->request.budget[PB_TIER_DEVICE]--;
}
static void no_host_budget(support_bench *b) {
    b->request.budget[PB_TIER_HOST]--;
}
static void no_nvme_budget(support_bench *b) {
    b->request.budget[PB_TIER_NVME]--;
}
static void miscount_extents(support_bench *b) {
    b->program.tier_bytes[PB_TIER_NVME] = 4096;
}
static void misalign_an_extent(support_bench *b) {
    b->extent_bytes[0] = 4000;
}
static void no_home(support_bench *b) {
    b->home[b->p.norm] = UINT64_MAX;
}
static void share_a_home(support_bench *b) {
    b->home[b->p.norm] = HYPER;
}
static void no_home_for_an_output(support_bench *b) {
    b->p.g->values[b->p.control].output = true;
}
static void another_home_for_an_output(support_bench *b) {
    no_home_for_an_output(b);
    b->home[b->p.control] = SECOND;
}
static void a_home_for_an_output(support_bench *b) {
    no_home_for_an_output(b);
    b->home[b->p.control] = CONTROL;
}
static void lose_a_piece(support_bench *b) {
    for (pb_vid v = b->p.v + 1; v <= b->p.g->value_count; v++) b->first_piece[v]--;
}
static void give_an_input_pieces(support_bench *b) {
    b->first_piece[b->p.master] = 1;
}
static void cut_a_piece(support_bench *b) {
    b->pieces[0].bytes -= 256;
}
static void begin_a_piece_late(support_bench *b) {
    b->pieces[0].begin = 4;
}
static void overlap_pieces(support_bench *b) {
    b->pieces[1].offset -= 256;
}
static void swap_pieces(support_bench *b) {
    b->pieces[0].offset = 1024;
    b->pieces[1].offset = 0;
}
static void put_a_piece_past_the_extent(support_bench *b) {
    b->pieces[2].offset = 3328;
}
static void put_a_piece_nowhere(support_bench *b) {
    b->pieces[2].extent = 2;
}
static void put_a_piece_past_the_slab(support_bench *b) {
    b->pieces[2].tier = PB_TIER_DEVICE;
    b->pieces[2].offset = DEVICE - 256;
}
static void put_pieces_into_the_second_extent(support_bench *b) {
    for (int i = 0; i < 3; i++) b->pieces[i].extent = 1;
}
// v is on the host, where it is not put back.
static void leave_a_piece_behind(support_bench *b) {
    b->pieces[2].tier = PB_TIER_HOST;
    b->pieces[2].offset = SPARE;
}
// In two pieces, apart in the extent but together once they are on the device.
static void move_a_gap(support_bench *b) {
    const pb_piece last = b->pieces[2];
    b->pieces[2].bytes = 512;
    b->pieces[3] = last;
    b->pieces[3].begin = 512;
    b->pieces[3].bytes = 512;
    b->pieces[3].offset = 2560 + 512;
    for (pb_vid v = b->p.v + 1; v <= b->p.g->value_count; v++) b->first_piece[v]++;
    pb_program *p = &b->program;
    p->insn_count = COMPUTE_WAITS;
    b->insns[UPLOAD_CHUNK].bytes = 2560;
    support_wait(b, PB_LANE_COMPUTE, support_move(b, PB_LANE_UPLOAD, STAGE + 3072, FIRST + 2560, 512, 0));
    support_update(b, FIRST, 0, 256);
    support_wait(b, PB_LANE_DOWNLOAD, p->insn_count - 1);
    support_move(b, PB_LANE_DOWNLOAD, FIRST + 2560, STAGE + 3072, 512, 0);
    support_wait(b, PB_LANE_WRITE, support_move(b, PB_LANE_DOWNLOAD, FIRST, STAGE, 2560, 0));
    support_move(b, PB_LANE_WRITE, STAGE, 0, 4096, 0);
    p->moved[PB_LINK_UPLOAD] = p->moved[PB_LINK_DOWNLOAD] = CHUNK;
    p->moved[PB_LINK_NVME_WRITE] = p->moved[PB_LINK_NVME_READ] = 4096;
}

// What came back from the device never reaches the extent.
static void forget_the_last_write(support_bench *b) {
    forget(b, WRITE_CHUNK);
    b->program.moved[PB_LINK_NVME_WRITE] -= 4096;
}

static const struct {
    void (*tamper)(support_bench *b);
    const char *message;  // NULL: accepted
} cases[] = {
    {wait_more, NULL},
    {wait_in_a_roundabout_way, NULL},
    {scratch_enough, NULL},
    {a_home_for_an_output, NULL},
    {move_a_gap, NULL},
    // Races
    {lose_upload_wait, "instruction 4 (FETCH, lane upload) reads bytes of value 4 (master) that instruction 2 "
                       "(FETCH from NVMe, lane read) may still be writing"},
    {lose_compute_wait, "may still be writing"},
    {lose_download_wait, "may still be writing"},
    {wait_for_one_slice_only, "that instruction 7 (adamw, lane compute) may still be writing"},
    {lose_write_wait, "may still be reading"},
    {lose_wait_between_writes, "instruction 14 (EVICT to NVMe, lane write) overwrites"},
    {lose_read_wait, "that instruction 14 (EVICT to NVMe, lane write) may still be writing"},
    {lose_wait_between_reads, "instruction 18 (FETCH from NVMe, lane read) overwrites"},
    {scratch_in_the_way_of_a_move, "instruction 5 (geglu, lane compute) overwrites"},
    {wait_for_later, "does not come before it"},
    {wait_for_a_wait, "a WAIT"},
    {wait_for_itself, "waits for itself"},
    // Moves
    {read_too_little, "moves 2048 bytes, but extent 1"},
    {read_what_was_not_written, "holds 0"},
    {write_a_part_only, "moves 3072 bytes, but extent 0"},
    {write_past_the_extent, "more than extent 1 takes"},
    {move_a_missing_extent, "which is not there"},
    {move_from_the_middle, "elsewhere than its beginning"},
    {misalign_a_read, "not aligned to 4096"},
    {misalign_an_upload, "not aligned to 256"},
    {upload_past_the_end, "the target of instruction 4 leaves the device slab"},
    {upload_from_past_the_end, "the source of instruction 4 leaves the host slab"},
    {cut_off_the_last_block, "leaves the host slab"},
    {upload_by_the_wrong_lane, "lane download does not move from host to device"},
    {upload_from_nvme, "lane upload does not move from nvme to device"},
    {upload_nothing, "moves nothing"},
    {upload_too_little, "instruction 7 (adamw) reads value 6 (v), whose byte 1020 is not at device offset"},
    {miscount_moves, "bytes by upload and says"},
    // Nodes
    {run_on_a_lane_for_moves, "on a lane for moves"},
    {run_on_the_host, "instruction 1 (step_control) reads value 1 (norm), whose byte 0 is not at host offset 1024"},
    {run_on_no_lane, "on no lane"},
    {be_of_no_kind, "of no kind"},
    {run_a_missing_node, "node 3, which is not there"},
    {run_twice, "runs twice"},
    {never_run, "never runs"},
    {update_no_adamw, "is no adamw"},
    {update_after_a_run, "which has run"},
    {update_past_the_end, "updates elements 128+129 of value 4 (master), which has 256"},
    {update_before_the_beginning, "updates elements -1+128"},
    {update_nothing, "updates elements 0+0"},
    {leave_elements_out, "from element 128, not 64"},
    {update_other_elements, "whose byte 256 is not at"},
    {update_elements_twice, "from element 0, not 64"},
    {misalign_an_update, "not aligned to 64"},
    {run_on_the_wrong_value, "input 0 is not the graph's"},
    {write_the_wrong_value, "output 0 is not the graph's"},
    {run_past_the_end, "leaves the device slab"},
    {misalign_a_run, "not aligned to 256"},
    {overwrite_an_input, "overwrites input 0 (value 3, wide) while it is read"},
    {in_place_elsewhere, "overwrites input 3"},
    {overwrite_another_value, "reads value 0 (gradient), whose byte 0 is not at"},
    {overlap_outputs, "outputs 0 and 1 (values 9 and 10) overlap"},
    {scratch_over_an_input, "its scratch covers input 0"},
    {scratch_over_an_output, "its scratch covers output 0"},
    {scratch_over_another_value, "reads value 0 (gradient)"},
    {scratch_past_the_end, "the scratch of instruction 0 leaves"},
    {scratch_too_small, "has 256 bytes of scratch and needs 512"},
    // The two ends
    {no_device_budget, "its budget of the device tier"},
    {no_host_budget, "its budget of the host tier"},
    {no_nvme_budget, "its budget of the nvme tier"},
    {miscount_extents, "its extents have 8192 bytes, not 4096"},
    {misalign_an_extent, "extent 0 has a capacity of 4000"},
    {no_home, "the home of value 1"},
    {share_a_home, "lie at the same device offset"},
    {no_home_for_an_output, "the home of value"},
    {another_home_for_an_output, "is not at home after the step"},
    {lose_a_piece, "the pieces of value 6 (v) end at byte 0"},
    {give_an_input_pieces, "value 3 (wide) has pieces"},
    {cut_a_piece, "the pieces of value 4 (master) end at byte 768"},
    {begin_a_piece_late, "leave a gap or overlap at byte 0"},
    {overlap_pieces, "lie in extent 0 at the same offset"},
    {swap_pieces, "reads value 4 (master), whose byte 0 is not at"},
    {put_a_piece_past_the_extent, "leaves extent 0"},
    {put_a_piece_nowhere, "lies nowhere"},
    {put_a_piece_past_the_slab, "a piece of value 6 leaves the device slab"},
    {put_pieces_into_the_second_extent, "but extent 0 before it holds nothing that lasts"},
    {forget_the_last_write, "bytes 0+1024 of value 9 (master) are not in their place on the nvme tier"},
    {leave_a_piece_behind, "instruction 6 (adamw) reads value 6 (v)"},
};

int main(void) {
    support_bench b;
    support_make_program(&b);
    CHECK_OK(b.p.g->status);
    CHECK(b.program.insn_count == COUNT);
    CHECK_OK(pb_program_check(b.p.g, &b.program, &b.request));
    pb_graph_destroy(b.p.g);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        support_make_program(&b);
        cases[i].tamper(&b);
        pb_error_clear();
        const pb_status status = pb_program_check(b.p.g, &b.program, &b.request);
        if (cases[i].message)
            CHECK_THAT(status == PB_ERR_INTERNAL && strstr(pb_error_message(), cases[i].message),
                       "case %zu: expected \"%s\", not \"%s\"", i, cases[i].message, pb_error_message());
        else
            CHECK_THAT(status == PB_OK, "case %zu: %s", i, pb_error_message());
        pb_graph_destroy(b.p.g);
    }
    return CHECK_DONE();
}
