// A training run's configuration: YAML, then --set, then checks. The keys are the rows of config.def.
#ifndef PB_IO_RUN_CONFIG_H
#define PB_IO_RUN_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/json.h"

#define PB_SIZE_AUTO INT64_C(-1)
#define PB_PRECISION_SOURCE PB_DTYPE_COUNT  // save_precision: each tensor in the dtype of the file it came from

typedef enum pb_placement { PB_PLACEMENT_AUTO, PB_PLACEMENT_DEVICE, PB_PLACEMENT_HOST, PB_PLACEMENT_NVME } pb_placement;

typedef enum pb_checkpoint_format {
    PB_CHECKPOINT_AUTO,
    PB_CHECKPOINT_PORTABLE,
    PB_CHECKPOINT_SWAP
} pb_checkpoint_format;

typedef enum pb_frozen_weights { PB_FROZEN_FULL, PB_FROZEN_8BIT } pb_frozen_weights;
typedef enum pb_optimizer_states { PB_STATES_FP32, PB_STATES_16BIT, PB_STATES_8BIT } pb_optimizer_states;
typedef enum pb_optimizer_master {
    PB_MASTER_FP32,
    PB_MASTER_SPLIT16,
    PB_MASTER_SPLIT8,
    PB_MASTER_NONE
} pb_optimizer_master;

typedef struct pb_maybe_int {
    bool set;  // not null
    int64_t value;
} pb_maybe_int;

typedef struct pb_maybe_real {
    bool set;
    double value;
} pb_maybe_real;

// Every key is a field of its own name: config.learning_rate, config.memory.device. Texts live in `arena`.
typedef struct pb_config {
    pb_arena *arena;
    const char **notes;  // what people should know about their keys: one sentence each, without a full stop
    size_t note_count;
#define PB_SECTION(title)
#define PB_GROUP_BEGIN(group) struct {
#define PB_GROUP_END(group) \
    }                       \
    group;
#define PB_STRING(name, initial, doc) const char *name;
#define PB_PATH(name, initial, doc) const char *name;
#define PB_BOOL(name, initial, doc) bool name;
#define PB_INT(name, initial, low, high, doc) int64_t name;
#define PB_MAYBE_INT(name, low, high, doc) pb_maybe_int name;
#define PB_REAL(name, initial, low, high, doc) double name;
#define PB_MAYBE_REAL(name, low, high, doc) pb_maybe_real name;
#define PB_COUNT(name, high, doc) int64_t name;
#define PB_SIZE(name, doc) int64_t name;
#define PB_ENUM(name, type, choices, initial, doc) type name;
#define PB_NAME(name, choices, initial, doc) const char *name;
#define PB_INERT(name, why)
#define PB_REFUSED(name, why)
#include "io/config.def"
#include "io/config_undef.h"
} pb_config;

// Defaults. The configuration keeps `arena` for its texts.
pb_status pb_config_init(pb_arena *arena, pb_config *config);
// Applies a YAML text over what is there. `name` (its path) is for messages, which give line and column and, for a
// wrong key or choice, the nearest right one. Errors: PB_ERR_FORMAT, PB_ERR_MEMORY.
pb_status pb_config_read(pb_config *config, const char *text, size_t bytes, const char *name);
// Applies "key=value" ("memory.device=8GiB", "class_prompt=a photo of a dog"). The value is a YAML scalar; what does
// not start with a quote is taken as it stands. Errors: PB_ERR_USAGE, PB_ERR_MEMORY.
pb_status pb_config_set(pb_config *config, const char *assignment);
// Required keys and those that only make sense together. Errors: PB_ERR_USAGE.
pb_status pb_config_check(pb_config *config);
// Whether it asks for pictures during training.
static inline bool pb_config_validates(const pb_config *config) {
    return config->validation_prompt && *config->validation_prompt && config->num_validation_images > 0;
}
// What a configuration calls a value of such a key: ("optimizer.states", PB_STATES_8BIT) is "8bit".
const char *pb_config_choice_name(const char *key, int value);
// The part of it that is about what the optimizer keeps; use_8bit_adam becomes optimizer.states.
pb_status pb_config_check_optimizer(pb_config *config);
// Defaults, the file at `path` (NULL: none), the assignments; unchecked, for commands that need no data.
pb_status pb_config_gather(pb_arena *arena, const char *path, const char *const *sets, size_t set_count,
                           pb_config *config);
// All of the above; `path` may be NULL (defaults only). A relative path in the file is relative to the working
// directory.
pb_status pb_config_load(pb_arena *arena, const char *path, const char *const *sets, size_t set_count,
                         pb_config *config);

// As YAML that reads back to the same configuration; every key that has an effect, none that has not.
void pb_config_print(const pb_config *config, pb_text *text);
// The value of one key, as config.yaml has it; nothing for a key without effect.
void pb_config_print_value(const pb_config *config, const char *key, pb_text *text);
// Every key with its default and meaning, as Markdown.
void pb_config_document(pb_text *text);

#endif
