#include <string.h>

#include "io/run_config.h"
#include "io/config_table.h"

static const char *choice_name(const pb_config_key *key, int value) {
    for (const pb_config_choice *c = key->choices; c->name; c++)
        if (c->value == value) return c->name;
    return "null";
}

const char *pb_config_choice_name(const char *key, int value) {
    for (int i = 0; i < pb_config_key_count; i++)
        if (pb_config_keys[i].kind == PB_CONFIG_ENUM && !strcmp(pb_config_keys[i].key, key))
            return choice_name(&pb_config_keys[i], value);
    return "null";
}

static void print_int(pb_text *text, int64_t value) {
    pb_text_append(text, "%lld", (long long)value);
}

static void print_string(pb_text *text, const char *value) {
    // A JSON string is a double-quoted YAML scalar.
    if (value)
        pb_text_append_json_string(text, value, strlen(value));
    else
        pb_text_append(text, "null");
}

static void print_value(pb_text *text, const pb_config *config, const pb_config_key *key) {
    const void *field = (const char *)config + key->offset;
    const pb_maybe_int *maybe_int = field;
    const pb_maybe_real *maybe_real = field;
    const int64_t *number = field;
    switch (key->kind) {
    case PB_CONFIG_PATH:
    case PB_CONFIG_STRING: print_string(text, *(const char *const *)field); return;
    case PB_CONFIG_BOOL: pb_text_append(text, *(const bool *)field ? "true" : "false"); return;
    case PB_CONFIG_INT: print_int(text, *number); return;
    case PB_CONFIG_MAYBE_INT:
        if (maybe_int->set)
            print_int(text, maybe_int->value);
        else
            pb_text_append(text, "null");
        return;
    case PB_CONFIG_REAL: pb_text_append_json_number(text, *(const double *)field); return;
    case PB_CONFIG_MAYBE_REAL:
        if (maybe_real->set)
            pb_text_append_json_number(text, maybe_real->value);
        else
            pb_text_append(text, "null");
        return;
    case PB_CONFIG_COUNT:
        if (*number)
            print_int(text, *number);
        else
            pb_text_append(text, "auto");
        return;
    case PB_CONFIG_SIZE:  // with its unit: one that is small is not read without
        if (*number > 0)
            pb_text_append(text, "%lldB", (long long)*number);
        else
            pb_text_append(text, *number ? "auto" : "none");
        return;
    case PB_CONFIG_ENUM: pb_text_append(text, "%s", choice_name(key, *(const int *)field)); return;
    case PB_CONFIG_NAME: pb_text_append(text, "%s", *(const char *const *)field); return;
    default: return;
    }
}

void pb_config_print_value(const pb_config *config, const char *key, pb_text *text) {
    for (int i = 0; i < pb_config_key_count; i++)
        if (!strcmp(pb_config_keys[i].key, key)) print_value(text, config, &pb_config_keys[i]);
}

static bool has_effect(const pb_config_key *key) {
    return key->kind != PB_CONFIG_SECTION && key->kind != PB_CONFIG_INERT && key->kind != PB_CONFIG_REFUSED;
}

void pb_config_print(const pb_config *config, pb_text *text) {
    char group[64] = "";
    for (int i = 0; i < pb_config_key_count; i++) {
        const pb_config_key *key = &pb_config_keys[i];
        if (!has_effect(key)) continue;
        const char *dot = strchr(key->key, '.');
        const size_t bytes = dot ? (size_t)(dot - key->key) : 0;
        if (bytes && (strncmp(group, key->key, bytes) != 0 || group[bytes])) {
            memcpy(group, key->key, bytes);
            group[bytes] = '\0';
            pb_text_append(text, "%s:\n", group);
        }
        pb_text_append(text, "%s%s: ", dot ? "  " : "", dot ? dot + 1 : key->key);
        print_value(text, config, key);
        pb_text_append(text, "\n");
    }
}

void pb_config_document(pb_text *text) {
    for (int i = 0; i < pb_config_key_count; i++) {
        const pb_config_key *key = &pb_config_keys[i];
        if (key->kind == PB_CONFIG_SECTION)
            pb_text_append(text, "%s## %s\n\n| key | default | meaning |\n|---|---|---|\n", i ? "\n" : "", key->key);
        else if (has_effect(key))
            pb_text_append(text, "| `%s` | %s | %s |\n", key->key, key->initial, key->doc);
        else
            pb_text_append(text, "| `%s` | | %s%s. |\n", key->key, key->kind == PB_CONFIG_REFUSED ? "Refused: " : "",
                           key->doc);
    }
}
