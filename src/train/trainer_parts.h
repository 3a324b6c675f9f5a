// Private to src/train/trainer*.c: the pieces of a run.
#ifndef PB_TRAIN_TRAINER_PARTS_H
#define PB_TRAIN_TRAINER_PARTS_H

#include <stdio.h>

#include "exec/executor.h"
#include "io/run_config.h"
#include "io/model_dir.h"
#include "train/architecture.h"
#include "train/batching.h"
#include "train/dataset.h"
#include "train/denoise.h"
#include "train/draws.h"
#include "train/encode.h"
#include "train/lr_schedule.h"
#include "train/memory_limits.h"
#include "train/metrics.h"
#include "train/noise_schedule.h"
#include "train/progress.h"
#include "train/step_graph.h"
#include "train/step_plan.h"
#include "train/trainer.h"

// The two kinds of pictures, and what there are prompts of.
enum { PB_SIDE_INSTANCE, PB_SIDE_CLASS, PB_SIDES };
enum { PB_PROMPT_NONE = PB_SIDES, PB_PROMPT_VALIDATION, PB_PROMPTS };

// --- Compiled passes (trainer_programs.c) ---

enum { PB_PASS_PROGRAMS = 16, PB_PROGRAMS_WAYS = 4 };

typedef struct pb_pass_program {
    int64_t images;
    pb_pass pass;
    pb_step_graph *step;
    pb_program *program;
    pb_executor *executor;  // NULL before pb_programs_start
} pb_pass_program;

typedef struct pb_programs {
    pb_pass_program items[PB_PASS_PROGRAMS];
    int count;
    bool sums, deferred;             // as in pb_step_request
    double recompute;                // likewise, of ways that run more again; 0: not chosen yet (trainer_ways.c)
    pb_arena *arena;                 // of what the chosen way carries, or NULL
    pb_pass_program flush;           // where updates are deferred
    pb_pass_program sample, decode;  // where validation pictures are made; `step` is NULL elsewhere
    pb_memory *memory;
    uint64_t tier_bytes[PB_TIER_COUNT];
    const char *nvme;           // directory, or NULL
    double link_share;          // memory.link_share
    const pb_backend *backend;  // of pb_memory_limits
    // Of a refusal (PB_ERR_BUDGET): the tier that lacks, and the smallest budget of it that works while the others are
    // as they are; 0 where none does.
    pb_tier lacking;
    uint64_t smallest;
} pb_programs;

// Plans every pass that an epoch has, everything resident where that fits, else paged with deferred updates. `request`
// has all but batch, pass, sums and deferred. PB_ERR_BUDGET names the
// memory.micro_batch that would fit.
pb_status pb_programs_compile(const pb_step_request *request, const pb_batching *batching,
                              const pb_memory_limits *limits, pb_programs *programs);
// One of several ways of doing so, requests that do the same: what is predicted to be the fastest, and *chosen: which
// that is. At most PB_PROGRAMS_WAYS; more than one with a single pass only. `sums` and `deferred` are set. `quick`:
// finds a plan less often, but what it finds is also found without it. A refusal goes to *limits->refusal, and no
// program is left then.
pb_status pb_programs_compile_ways(const pb_step_request *ways, int count, const pb_plan_request *limits, bool quick,
                                   pb_programs *programs, int *chosen);
// With everything on the device, where need be with more that is run again in the backward pass (trainer_ways.c).
// *again: that it was.
pb_status pb_programs_compile_resident(const pb_step_request *request, const pb_plan_request *limits, bool quick,
                                       pb_programs *programs, bool *again);
double pb_programs_seconds(const pb_programs *programs);  // predicted, of all of them
// With deferred updates, the fastest of several ways (trainer_ways.c); not one that is slower than limits->faster_than.
pb_status pb_programs_compile_deferred(const pb_step_request *request, const pb_plan_request *limits, bool quick,
                                       pb_programs *programs);
void pb_programs_drop(pb_programs *programs);  // what was compiled of them
// The most that any of them takes of each tier.
void pb_programs_bytes(const pb_programs *programs, uint64_t bytes[PB_TIER_COUNT]);
// The same by class; per tier those of the step's program that takes most of it (see pb_step_plan). What validation
// pictures take beyond it is padding.
void pb_programs_peaks(const pb_programs *programs, uint64_t bytes[PB_TIER_COUNT],
                       uint64_t by_class[PB_TIER_COUNT][PB_CLASS_COUNT], uint64_t padding[PB_TIER_COUNT]);
// Makes the memory and the executors.
pb_status pb_programs_start(pb_programs *programs);
void pb_programs_deinit(pb_programs *programs);
pb_pass_program *pb_programs_find(pb_programs *programs, int64_t images, pb_pass pass);
// The one that weights and states go through; all have them at the same place.
static inline pb_pass_program *pb_programs_any(pb_programs *programs) {
    return &programs->items[0];
}

// The program of each pass of an epoch's first step in turn; false behind the last. Begin with {0}.
typedef struct pb_pass_walk {
    int64_t batch, first;
    const pb_pass_program *pass;
} pb_pass_walk;
bool pb_pass_walk_next(const pb_programs *programs, const pb_batching *batching, pb_pass_walk *walk);

// What steers an update that has been put off: of the last step, where its programs defer.
typedef struct pb_due_update {
    bool due;
    float control[PB_CONTROL_COUNT], hyper[PB_HYPER_COUNT];
} pb_due_update;

// --- Pictures as latents (trainer_data.c) ---

typedef struct pb_training_data {
    pb_picture_set set[PB_SIDES];
    pb_crop_slack *slack[PB_SIDES];  // (count)
    pb_moments *cached[PB_SIDES];    // (count); mean is NULL where the picture is encoded anew each time
    float *cache[PB_SIDES];          // their memory
    pb_vae_encoder *encoder;         // NULL when everything is cached
    pb_moments fresh;                // of a picture that is not
    int32_t resolution;
    bool center_crop;
} pb_training_data;

// Lists the pictures. Class pictures may be fewer than num_class_images: they are sampled before pb_training_data_load.
pb_status pb_training_data_list(pb_arena *arena, const pb_config *config, pb_training_data *data);
struct pb_trainer;
// How a run's frozen parts are run.
pb_encoding pb_trainer_encoding(const struct pb_trainer *trainer);
// Reads the pictures and caches what can be.
pb_status pb_training_data_load(struct pb_trainer *trainer);
void pb_training_data_deinit(pb_training_data *data);
pb_status pb_training_data_moments(pb_training_data *data, int side, int64_t picture, pb_crop crop,
                                   const pb_moments **moments);

// --- The loss scale of fp16 (trainer_batch.c); 1 and fixed otherwise ---
typedef struct pb_loss_scale {
    double scale;
    int64_t good_steps;
    bool dynamic;
} pb_loss_scale;

// --- Predicted against actual (trainer_report.c) ---

typedef struct pb_run_record {
    bool tracing;                             // times are being taken
    int64_t first_step, traced_step;          // of this process; 0 before
    size_t noted;                             // of the device's notes, bytes that have been passed on
    int64_t images, full_images;              // of the step under way; of a full one
    double in_programs;                       // seconds of the step under way
    int64_t steps;                            // that were timed: full ones, but for the first
    double seconds, program_seconds;          // of all of them together
    pb_insn_times *times[PB_PASS_PROGRAMS];   // by program, of the last traced step that ran it
    uint64_t own_bytes, limit;                // of the process: before the slabs were made; at most
    unsigned char *inputs[PB_PASS_PROGRAMS];  // of a run that is measured: what each program was last given
    bool peak_counted;                        // by the system; else `peak` is the most that was seen after a step
    uint64_t peak;
} pb_run_record;

// --- Validation pictures (trainer_validation.c) ---

typedef struct pb_validation {
    pb_denoise denoise;
    pb_weights *vae;
    void *texts;     // what denoise.texts points to
    float *latents;  // (num_validation_images,C,h,w)
    char *folder, *path;
    size_t path_bytes;
} pb_validation;

// What a batch needs on the host, allocated once.
typedef struct pb_batch_buffers {
    float *sample, *noise, *offset, *latents, *target;  // (N,C,h,w); offset (N,C)
    float *turned;                                      // (h,w,C) of one picture
    void *narrow;                                       // the same in the compute type
    int64_t *timesteps;
    float *times, *weights, *losses;
    double *micro_losses;
} pb_batch_buffers;

typedef struct pb_trainer {
    pb_arena *arena;
    pb_config *config;
    pb_model_dir *model;
    pb_architecture architecture;
    pb_noise_schedule noise;
    pb_weights *sources[PB_PART_COUNT];  // of the trained parts, to write them as they were
    pb_step_request request;
    pb_batching batching;
    pb_memory_limits limits;
    pb_programs programs;
    pb_due_update due;
    float next_hyper[PB_HYPER_COUNT];  // of the step that is being made
    pb_training_data data;
    pb_draws *draws;
    pb_lr_schedule schedule;
    pb_loss_scale loss_scale;
    pb_metrics *metrics;
    pb_progress progress;
    pb_run_record record;
    pb_train_report *report;  // where the measurements go, or NULL
    bool measuring;           // the run is only made for the report: nothing is written but metrics
    pb_batch_buffers buffers;
    int tokens;
    int32_t *ids[PB_PROMPTS];   // (T); NULL where the run has no such prompt
    void *context[PB_PROMPTS];  // (T,D) in the compute type, where the text encoder is frozen
    pb_validation validation;
    int64_t run;                // when this run began: tells its checkpoints from an earlier run's
    int64_t step, max_steps;    // optimizer steps done; to do
    int64_t rounding_seed;      // of stochastic rounding: the seed that the run began with
    int lock;                   // descriptor of output_dir's lock
    const char *output_before;  // output_dir, or the folder above it that was there before this run made it
    int64_t saved_step;         // of the newest checkpoint of this run; 0 before
} pb_trainer;

// --- One batch (trainer_batch.c) ---
pb_status pb_batch_buffers_init(pb_trainer *t);
// Makes the update that is due, if one is: weights and state are then those after the last step.
pb_status pb_trainer_flush(pb_trainer *t);
// Writes what steers it into a program that begins with it: the update that is due, which is then due no more, or none.
pb_status pb_trainer_upload_due(pb_trainer *t, const pb_pass_program *p);
// Forward and backward of a batch, and, where it closes a step, the update with `lr`. *loss: instance plus weighted
// class. control[PB_CONTROL_COUNT] is written when the batch closes a step.
pb_status pb_trainer_batch(pb_trainer *t, const pb_draws_batch *batch, double lr, double *loss, float *control);

// --- Predicted against actual (trainer_report.c) ---
// Before the slabs are made: how much memory the process has of its own.
void pb_record_own_memory(pb_trainer *t);
// When all is in place: says what the process may take, and begins to measure. Nothing is allocated after it.
pb_status pb_record_begin(pb_trainer *t);
pb_status pb_record_run(pb_trainer *t, pb_pass_program *p, int64_t images);  // pb_executor_run, timed
void pb_record_step(pb_trainer *t, const pb_metrics_step *line);
// Says how the run compares with its plan, fills in the report.
pb_status pb_record_finish(pb_trainer *t);
// Writes the timeline where one is wanted; behind the result, which a timeline that cannot be written must not cost.
pb_status pb_record_timeline(pb_trainer *t);
void pb_record_deinit(pb_trainer *t);
// What a step does on some lanes, timed alone once nobody needs the state any more (trainer_alone.c).
pb_status pb_alone_begin(pb_trainer *t);
pb_status pb_alone_keep_inputs(pb_trainer *t, const pb_pass_program *p);  // before a run
pb_status pb_alone_measure(pb_trainer *t, pb_train_report *report);

// --- Validation pictures (trainer_validation.c) ---
// Before the slabs are made and after the prompts are encoded: all that validation allocates but the pictures.
pb_status pb_validation_init(pb_trainer *t);
// Makes the pictures of step t->step where that is one of theirs. Whatever else the run holds is left as it is, but for
// an update that is due, which is made. A signal ends it early.
pb_status pb_validation_run(pb_trainer *t);
void pb_validation_deinit(pb_trainer *t);
double pb_validation_seconds(const pb_trainer *t);  // that one time's pictures are predicted to take

// --- The output folder (trainer_output.c) ---
// Makes it, refuses links, the model that is trained and models from elsewhere, takes the lock: a second process gets
// PB_ERR_IO at once.
pb_status pb_output_open(pb_trainer *t);
// The same with nothing made or written: whether it could be.
pb_status pb_output_look(pb_trainer *t);
void pb_output_close(pb_trainer *t);
// Of a run that has failed: where it has left nothing but its lock, that goes, and with it what it has made of the
// folder's path. Returns `status`, with
// the message that it has.
pb_status pb_output_withdraw(pb_trainer *t, pb_status status);
// run.json: which run the folder's files are of, and whether it came to its end.
pb_status pb_output_read_run(pb_trainer *t, int64_t *run, int64_t *finished_steps);
pb_status pb_output_write_run(pb_trainer *t, bool finished);
// config.yaml: the configuration that was run.
pb_status pb_output_write_config(pb_trainer *t, const char *path);
// Before anything is made: whether all that the trained pipeline takes over from the model can be read, and whether
// there is room for its *bytes.
pb_status pb_output_require_room(pb_trainer *t, uint64_t *bytes);
pb_status pb_output_write_model(pb_trainer *t);

// --- Checkpoints (trainer_state.c) ---
// Before anything is made: PB_ERR_IO where the result, or a checkpoint that the run has to make, would not find room.
pb_status pb_state_require_room(pb_trainer *t);
// Flushes an update that is due first.
pb_status pb_state_save(pb_trainer *t);
// What resume_from_checkpoint asks for: *path is NULL where the run is to start afresh. `thorough`:
// verified, else looked at (train/checkpoint.h). PB_ERR_FORMAT where there are checkpoints and none of them is whole.
pb_status pb_state_find(pb_trainer *t, bool thorough, const char **path);
// Before anything is made that takes time, and again when it is loaded: PB_ERR_USAGE where the checkpoint is of another
// kind of run. *step: the step that it is of.
pb_status pb_state_compare(pb_trainer *t, const char *checkpoint, int64_t *step);
// Before the draws are made.
pb_status pb_state_load(pb_trainer *t, const char *path);

// --- Before the first step (trainer_begin.c) ---
// What this run does in its output_dir: *nothing where it has been done; *checkpoint to go on from, or NULL. Writes
// nothing. Refuses what could not be written later on: no room, no permission. `thorough`: the checkpoint's large files
// are read and compared with their hashes.
typedef struct pb_beginning {
    bool nothing;
    const char *checkpoint;
    int64_t earlier, step;  // the last run there, 0 for none; the checkpoint's step
    size_t checkpoints;     // that are there
} pb_beginning;
pb_status pb_trainer_begin(pb_trainer *t, bool thorough, pb_beginning *beginning);
// Of `--check`, to stdout: that, with nothing made; whether every picture can be read, and the weights of the trained
// parts are those of their configurations.
pb_status pb_trainer_look(pb_trainer *t);
void pb_beginning_describe(const pb_trainer *t, const pb_beginning *beginning, FILE *file);

// --- Signals (trainer_signals.c) ---
void pb_signals_catch(void);
// A reader of the progress that went away (`train ... | head`) is no reason to lose the run.
void pb_signals_outlive_reader(void);
int pb_signals_caught(void);  // the first signal that asked to stop, or 0; a second one ends the process at once

#endif
