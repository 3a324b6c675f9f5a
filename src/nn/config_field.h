// Fields of a configuration file. Every message names the file, the field, its value and what would be right.
#ifndef PB_NN_CONFIG_FIELD_H
#define PB_NN_CONFIG_FIELD_H

#include "nn/config.h"

typedef struct pb_config_file {
    const pb_json *json;
    const char *name;
} pb_config_file;

// A field that changes what a model computes and that the builders know in one form only. `accepted`: values as in
// JSON, with '|' between them; what holds for a value holds for a list of such values. An absent field is right:
// the first value is diffusers' (or transformers') default.
typedef struct pb_fixed_field {
    const char *key, *accepted;
} pb_fixed_field;

// The value as in JSON, cut to fit; "missing" for NULL.
void pb_config_describe(const pb_json *value, char *text, size_t bytes);

// PB_ERR_UNSUPPORTED for the first field with another value.
pb_status pb_config_check_fixed(const pb_config_file *file, const pb_fixed_field *fields, int count);

// An int in low..high; `fallback` where absent or null. PB_ERR_FORMAT.
pb_status pb_config_int(const pb_config_file *file, const char *key, int low, int high, int fallback, int *value);

// An int for every level, or a list of `levels` ints; `fallback` where absent or null.
pb_status pb_config_ints(const pb_config_file *file, const char *key, int levels, int low, int high, int fallback,
                         int *values);

// A list of ints of any length in 1..PB_MAX_LEVELS.
pb_status pb_config_levels(const pb_config_file *file, const char *key, int low, int high, int *values, int *levels);

// A list of `levels` strings, each `plain` or `attention` (NULL: there is no such): is_attention[i] says which.
// PB_ERR_UNSUPPORTED for other strings.
pb_status pb_config_blocks(const pb_config_file *file, const char *key, int levels, const char *plain,
                           const char *attention, bool *is_attention);

// A finite number above 0, given in the file or `fallback`.
pb_status pb_config_positive(const pb_config_file *file, const char *key, double fallback, float *value);

// PB_ERR_FORMAT unless `parts` divides `whole`.
pb_status pb_config_divides(const pb_config_file *file, const char *parts_key, int parts, const char *whole_key,
                            int whole);

// PB_ERR_UNSUPPORTED where the file says that it describes something else ("_class_name").
pb_status pb_config_class(const pb_config_file *file, const char *expected);

#endif
