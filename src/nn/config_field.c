#include "nn/config_field.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void pb_config_describe(const pb_json *value, char *text, size_t bytes) {
    if (!value) {
        snprintf(text, bytes, "missing");
        return;
    }
    switch (value->type) {
    case PB_JSON_NULL: snprintf(text, bytes, "null"); break;
    case PB_JSON_BOOL: snprintf(text, bytes, "%s", value->boolean ? "true" : "false"); break;
    case PB_JSON_NUMBER: snprintf(text, bytes, "%.15g", value->number); break;
    case PB_JSON_STRING: snprintf(text, bytes, "\"%.60s\"", value->string); break;
    case PB_JSON_OBJECT: snprintf(text, bytes, "{...}"); break;
    case PB_JSON_ARRAY: {
        size_t used = (size_t)snprintf(text, bytes, "[");
        for (const pb_json *item = value->first; item && used < bytes; item = item->next) {
            char one[80];
            pb_config_describe(item, one, sizeof one);
            used += (size_t)snprintf(text + used, bytes - used, "%s%s", one, item->next ? ", " : "]");
        }
        if (!value->first) snprintf(text, bytes, "[]");
        break;
    }
    }
}

static bool is_accepted(const pb_json *value, const char *accepted) {
    char text[80];
    if (value->type == PB_JSON_ARRAY) {
        for (const pb_json *item = value->first; item; item = item->next)
            if (item->type == PB_JSON_ARRAY || !is_accepted(item, accepted)) return false;
        return value->first != NULL;
    }
    pb_config_describe(value, text, sizeof text);
    const size_t length = strlen(text);
    for (const char *at = accepted; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
        if (!strncmp(at, text, length) && (at[length] == '|' || at[length] == '\0')) return true;
    return false;
}

pb_status pb_config_check_fixed(const pb_config_file *file, const pb_fixed_field *fields, int count) {
    for (int i = 0; i < count; i++) {
        const pb_json *value = pb_json_get(file->json, fields[i].key);
        if (!value || is_accepted(value, fields[i].accepted)) continue;
        char text[160];
        pb_config_describe(value, text, sizeof text);
        return pb_error(PB_ERR_UNSUPPORTED, "%s: %s is %s; only %s is supported", file->name, fields[i].key, text,
                        fields[i].accepted);
    }
    return PB_OK;
}

static pb_status refuse(const pb_config_file *file, const char *key, const pb_json *value, const char *what) {
    char text[160];
    pb_config_describe(value, text, sizeof text);
    return pb_error(PB_ERR_FORMAT, "%s: %s is %s; it must be %s", file->name, key, text, what);
}

static pb_status read_int(const pb_config_file *file, const char *key, const pb_json *value, int low, int high,
                          int *result) {
    char what[80];
    snprintf(what, sizeof what, "a whole number from %d to %d", low, high);
    if (value->type != PB_JSON_NUMBER || !value->is_integer || value->integer < low || value->integer > high)
        return refuse(file, key, value, what);
    *result = (int)value->integer;
    return PB_OK;
}

pb_status pb_config_int(const pb_config_file *file, const char *key, int low, int high, int fallback, int *value) {
    const pb_json *json = pb_json_get(file->json, key);
    *value = fallback;
    if (!json || json->type == PB_JSON_NULL) return PB_OK;
    return read_int(file, key, json, low, high, value);
}

pb_status pb_config_ints(const pb_config_file *file, const char *key, int levels, int low, int high, int fallback,
                         int *values) {
    const pb_json *json = pb_json_get(file->json, key);
    if (json && json->type == PB_JSON_ARRAY) {
        if (json->count != (size_t)levels) return refuse(file, key, json, "a number, or one for each level");
        int i = 0;
        for (const pb_json *item = json->first; item; item = item->next)
            PB_RETURN_IF(read_int(file, key, item, low, high, &values[i++]));
        return PB_OK;
    }
    PB_RETURN_IF(pb_config_int(file, key, low, high, fallback, &values[0]));
    for (int i = 1; i < levels; i++) values[i] = values[0];
    return PB_OK;
}

pb_status pb_config_levels(const pb_config_file *file, const char *key, int low, int high, int *values, int *levels) {
    const pb_json *json = pb_json_get(file->json, key);
    if (!json || json->type != PB_JSON_ARRAY || json->count < 1 || json->count > PB_MAX_LEVELS)
        return refuse(file, key, json, "a list of 1 to 8 numbers");
    *levels = 0;
    for (const pb_json *item = json->first; item; item = item->next)
        PB_RETURN_IF(read_int(file, key, item, low, high, &values[(*levels)++]));
    return PB_OK;
}

pb_status pb_config_blocks(const pb_config_file *file, const char *key, int levels, const char *plain,
                           const char *attention, bool *is_attention) {
    const pb_json *json = pb_json_get(file->json, key);
    if (!json || json->type != PB_JSON_ARRAY || json->count != (size_t)levels)
        return refuse(file, key, json, "a list with one block for each of block_out_channels");
    int i = 0;
    for (const pb_json *item = json->first; item; item = item->next, i++) {
        if (item->type != PB_JSON_STRING) return refuse(file, key, json, "a list of names");
        is_attention[i] = attention && !strcmp(item->string, attention);
        if (!is_attention[i] && strcmp(item->string, plain))
            return pb_error(PB_ERR_UNSUPPORTED, "%s: %s has \"%.60s\"; only %s%s%s %s supported", file->name, key,
                            item->string, plain, attention ? " and " : "", attention ? attention : "",
                            attention ? "are" : "is");
    }
    return PB_OK;
}

pb_status pb_config_positive(const pb_config_file *file, const char *key, double fallback, float *value) {
    const pb_json *json = pb_json_get(file->json, key);
    *value = (float)fallback;
    if (!json || json->type == PB_JSON_NULL) return PB_OK;
    if (json->type != PB_JSON_NUMBER || !((float)json->number > 0.0f) || !isfinite((float)json->number))
        return refuse(file, key, json, "a number above 0");
    *value = (float)json->number;
    return PB_OK;
}

pb_status pb_config_divides(const pb_config_file *file, const char *parts_key, int parts, const char *whole_key,
                            int whole) {
    if (whole % parts == 0) return PB_OK;
    return pb_error(PB_ERR_FORMAT, "%s: %s is %d, which does not divide the %d of %s", file->name, parts_key, parts,
                    whole, whole_key);
}

pb_status pb_config_class(const pb_config_file *file, const char *expected) {
    if (!file->json || file->json->type != PB_JSON_OBJECT)
        return pb_error(PB_ERR_FORMAT, "%s: a configuration must be a JSON object", file->name);
    const pb_json *name = pb_json_get(file->json, "_class_name");
    if (!name || (name->type == PB_JSON_STRING && !strcmp(name->string, expected))) return PB_OK;
    char text[80];
    pb_config_describe(name, text, sizeof text);
    return pb_error(PB_ERR_UNSUPPORTED, "%s: _class_name is %s; only \"%s\" is supported", file->name, text, expected);
}
