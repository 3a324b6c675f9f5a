#include "io/config_table.h"

static const pb_config_choice mixed_precisions[] = {{"no", PB_F32}, {"fp16", PB_F16}, {"bf16", PB_BF16}, {NULL, 0}};
static const pb_config_choice generation_precisions[] = {
    {"fp32", PB_F32}, {"fp16", PB_F16}, {"bf16", PB_BF16}, {"no", PB_F32}, {NULL, 0}};
static const pb_config_choice save_precisions[] = {
    {"source", PB_PRECISION_SOURCE}, {"fp32", PB_F32}, {"fp16", PB_F16}, {"bf16", PB_BF16}, {NULL, 0}};
static const pb_config_choice placements[] = {{"auto", PB_PLACEMENT_AUTO},
                                              {"device", PB_PLACEMENT_DEVICE},
                                              {"host", PB_PLACEMENT_HOST},
                                              {"nvme", PB_PLACEMENT_NVME},
                                              {NULL, 0}};
static const pb_config_choice checkpoint_formats[] = {
    {"auto", PB_CHECKPOINT_AUTO}, {"portable", PB_CHECKPOINT_PORTABLE}, {"swap", PB_CHECKPOINT_SWAP}, {NULL, 0}};
static const pb_config_choice frozen_weights_choices[] = {
    {"full", PB_FROZEN_FULL}, {"8bit", PB_FROZEN_8BIT}, {NULL, 0}};
static const pb_config_choice optimizer_states[] = {
    {"fp32", PB_STATES_FP32}, {"16bit", PB_STATES_16BIT}, {"8bit", PB_STATES_8BIT}, {NULL, 0}};
static const pb_config_choice optimizer_masters[] = {{"fp32", PB_MASTER_FP32},
                                                     {"split16", PB_MASTER_SPLIT16},
                                                     {"split8", PB_MASTER_SPLIT8},
                                                     {"none", PB_MASTER_NONE},
                                                     {NULL, 0}};
static const pb_config_choice lr_schedulers[] = {{"linear", 0},     {"cosine", 0},   {"cosine_with_restarts", 0},
                                                 {"polynomial", 0}, {"constant", 0}, {"constant_with_warmup", 0},
                                                 {NULL, 0}};

static const pb_config_choice validation_schedulers[] = {{"DPMSolverMultistepScheduler", 0},
                                                         {"DDIMScheduler", 0},
                                                         {"PNDMScheduler", 0},
                                                         {"EulerDiscreteScheduler", 0},
                                                         {NULL, 0}};

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define KEY(name) .key = TEXT(PB_GROUP) #name
#define FIELD(name) KEY(name), .offset = offsetof(pb_config, PB_GROUP name)

// An enumeration is stored through an int.
#define PB_SECTION(title)
#define PB_GROUP_BEGIN(group)
#define PB_GROUP_END(group)
#define PB_STRING(name, initial, doc)
#define PB_PATH(name, initial, doc)
#define PB_BOOL(name, initial, doc)
#define PB_INT(name, initial, low, high, doc)
#define PB_MAYBE_INT(name, low, high, doc)
#define PB_REAL(name, initial, low, high, doc)
#define PB_MAYBE_REAL(name, low, high, doc)
#define PB_COUNT(name, high, doc)
#define PB_SIZE(name, doc)
#define PB_ENUM(name, type, choices, initial, doc) _Static_assert(sizeof(type) == sizeof(int), #type);
#define PB_NAME(name, choices, initial, doc)
#define PB_INERT(name, why)
#define PB_REFUSED(name, why)
#include "io/config.def"
#include "io/config_undef.h"

const pb_config_key pb_config_keys[] = {
#define PB_SECTION(title) {.kind = PB_CONFIG_SECTION, .key = title},
#define PB_GROUP_BEGIN(group)
#define PB_GROUP_END(group)
#define PB_STRING(name, value, text) {.kind = PB_CONFIG_STRING, FIELD(name), .initial = #value, .doc = text},
#define PB_PATH(name, value, text) {.kind = PB_CONFIG_PATH, FIELD(name), .initial = #value, .doc = text},
#define PB_BOOL(name, value, text) {.kind = PB_CONFIG_BOOL, FIELD(name), .initial = #value, .doc = text},
#define PB_INT(name, value, least, most, text) \
    {.kind = PB_CONFIG_INT, FIELD(name), .initial = #value, .low = least, .high = most, .doc = text},
#define PB_MAYBE_INT(name, least, most, text) \
    {.kind = PB_CONFIG_MAYBE_INT, FIELD(name), .initial = "null", .low = least, .high = most, .doc = text},
#define PB_REAL(name, value, least, most, text) \
    {.kind = PB_CONFIG_REAL, FIELD(name), .initial = #value, .low = least, .high = most, .doc = text},
#define PB_MAYBE_REAL(name, least, most, text) \
    {.kind = PB_CONFIG_MAYBE_REAL, FIELD(name), .initial = "null", .low = least, .high = most, .doc = text},
#define PB_COUNT(name, most, text) \
    {.kind = PB_CONFIG_COUNT, FIELD(name), .initial = "auto", .low = 1, .high = most, .doc = text},
#define PB_SIZE(name, text) {.kind = PB_CONFIG_SIZE, FIELD(name), .initial = "auto", .doc = text},
#define PB_ENUM(name, type, list, value, text) \
    {.kind = PB_CONFIG_ENUM, FIELD(name), .initial = #value, .choices = list, .doc = text},
#define PB_NAME(name, list, value, text) \
    {.kind = PB_CONFIG_NAME, FIELD(name), .initial = #value, .choices = list, .doc = text},
#define PB_INERT(name, why) {.kind = PB_CONFIG_INERT, KEY(name), .initial = "null", .doc = why},
#define PB_REFUSED(name, why) {.kind = PB_CONFIG_REFUSED, KEY(name), .initial = "null", .doc = why},
#include "io/config.def"
#include "io/config_undef.h"
};

const int pb_config_key_count = sizeof pb_config_keys / sizeof *pb_config_keys;
