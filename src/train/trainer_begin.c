// What a run finds in its output_dir and would do there, and whether it could: before anything is made that takes time.
#include <string.h>

#include "base/fs.h"
#include "train/checkpoint.h"
#include "train/trainer_parts.h"
#include "train/weights.h"

// Folders beside output_dir that the run writes in.
static pb_status look_elsewhere(const pb_trainer *t) {
    const pb_config *c = t->config;
    const bool missing =
        c->with_prior_preservation && t->data.set[PB_SIDE_CLASS].count < c->num_class_images && !t->measuring;
    if (missing) PB_RETURN_IF(pb_fs_require_writable(c->class_data_dir, "class_data_dir, where pictures are missing"));
    if (t->programs.tier_bytes[PB_TIER_NVME]) PB_RETURN_IF(pb_fs_require_writable(t->programs.nvme, "memory.nvme"));
    return c->memory.timeline ? pb_fs_require_writable(c->memory.timeline, "memory.timeline") : PB_OK;
}

pb_status pb_trainer_begin(pb_trainer *t, bool thorough, pb_beginning *b) {
    int64_t finished;
    pb_checkpoint_entry *entries;
    const char *resume = t->config->resume_from_checkpoint;
    *b = (pb_beginning){0};
    PB_RETURN_IF(pb_output_read_run(t, &b->earlier, &finished));
    b->nothing = resume && !strcmp(resume, "latest") && finished >= t->max_steps;
    if (b->nothing) {
        b->step = finished;
        return PB_OK;
    }
    PB_RETURN_IF(pb_checkpoint_list(t->arena, t->config->output_dir, &entries, &b->checkpoints));
    PB_RETURN_IF(pb_state_find(t, thorough, &b->checkpoint));
    if (b->checkpoint) PB_RETURN_IF(pb_state_compare(t, b->checkpoint, &b->step));
    PB_RETURN_IF(look_elsewhere(t));
    return pb_state_require_room(t);
}

void pb_beginning_describe(const pb_trainer *t, const pb_beginning *b, FILE *file) {
    const char *folder = t->config->output_dir;
    if (b->nothing)
        fprintf(file, "output: this run has done its %lld steps in %s; nothing is left to do\n", (long long)b->step,
                folder);
    else if (b->checkpoint)
        fprintf(file,
                "output: goes on from %s, after step %lld of %lld (its large files are compared with their hashes when "
                "the run begins)\n",
                b->checkpoint, (long long)b->step, (long long)t->max_steps);
    else if (b->checkpoints)
        fprintf(file,
                "output: starts afresh in %s, where %zu checkpoints of an earlier run are; new ones take their place "
                "(resume_from_checkpoint: latest would go on)\n",
                folder, b->checkpoints);
    else
        fprintf(file, "output: starts afresh in %s%s\n", folder,
                pb_fs_kind_of(folder) == PB_FS_NONE ? ", which will be made" : "");
}

static pb_status try_pictures(const pb_trainer *t) {
    for (int side = 0; side < PB_SIDES; side++) {
        pb_picture_sizes sizes;
        const pb_picture_set *set = &t->data.set[side];
        PB_RETURN_IF(pb_picture_set_try(set, t->data.resolution, &sizes));
        if (sizes.enlarged)
            printf("pictures: %lld of %lld in %s are smaller than the resolution, %d, and will be enlarged; %s has %d "
                   "pixels on its shorter side\n",
                   (long long)sizes.enlarged, (long long)set->count, set->folder, t->data.resolution, sizes.smallest,
                   sizes.side);
    }
    return PB_OK;
}

pb_status pb_trainer_look(pb_trainer *t) {
    pb_beginning begins;
    const pb_step_graph *step = pb_programs_any(&t->programs)->step;
    PB_RETURN_IF(try_pictures(t));
    for (pb_part part = 0; part < PB_PART_COUNT; part++) {
        const pb_module *module = pb_step_graph_trained(step, part);
        if (!module) continue;
        PB_RETURN_IF(pb_model_dir_weights(t->model, part, t->config->variant, &t->sources[part]));
        PB_RETURN_IF(pb_weights_check(module, t->sources[part]));
    }
    PB_RETURN_IF(pb_output_look(t));
    PB_RETURN_IF(pb_trainer_begin(t, false, &begins));
    pb_beginning_describe(t, &begins, stdout);
    return PB_OK;
}
