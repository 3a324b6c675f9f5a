#include "io/machine_profile.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/nearest.h"
#include "io/yaml.h"

// OPTIONAL: a REAL that is 0 where it is left out, as in profiles of before there was such a key.
typedef enum key_kind { NAME, FLAG, REAL, OPTIONAL, BYTES, OPS } key_kind;

typedef struct profile_key {
    const char *name;
    key_kind kind;
    size_t offset;  // of the field in pb_machine
    double low, high;
    const char *comment;
} profile_key;

// In the order in which they are written. Speeds start at 1 kB/s so that no time overflows.
static const profile_key keys[] = {
    {"name", NAME, offsetof(pb_machine, name), 0, 0, NULL},
    {"device_bytes", BYTES, offsetof(pb_machine, device_bytes), 1, 0x1p60, "what `auto` takes, margins already left"},
    {"host_bytes", BYTES, offsetof(pb_machine, host_bytes), 0, 0x1p60, NULL},
    {"nvme_bytes", BYTES, offsetof(pb_machine, nvme_bytes), 0, 0x1p60, "0: none"},
    {"upload", REAL, offsetof(pb_machine, upload), 1e3, 1e15, "host to device, alone; bytes per second"},
    {"download", REAL, offsetof(pb_machine, download), 1e3, 1e15, "device to host, alone"},
    {"copy_both", REAL, offsetof(pb_machine, copy_both), 1e3, 1e15, "the sum when both go at once"},
    {"dram", REAL, offsetof(pb_machine, dram), 1e3, 1e15, "the host's memory, reads and writes together"},
    {"nvme_read", REAL, offsetof(pb_machine, nvme_read), 0, 1e15, "alone, at the store's request size and depth"},
    {"nvme_write", REAL, offsetof(pb_machine, nvme_write), 0, 1e15, NULL},
    {"nvme_both", REAL, offsetof(pb_machine, nvme_both), 0, 1e15, "the sum when both go at once"},
    {"nvme_processors", OPTIONAL, offsetof(pb_machine, nvme_processors), 0, 1e15,
     "that would keep all processors busy; 0: the drive takes none of their time"},
    {"host_adamw", REAL, offsetof(pb_machine, host_adamw), 1e3, 1e15, "bytes of memory that AdamW on the host touches"},
    {"shared_cores", FLAG, offsetof(pb_machine, shared_cores), 0, 0, "copies and updates take time from the ops"},
    {"overhead", REAL, offsetof(pb_machine, overhead), 0, 1, "seconds per op or copy"},
    {"ops", OPS, offsetof(pb_machine, op), 1e3, 1e18, NULL},
};
enum { KEYS = sizeof keys / sizeof *keys, OTHERS = PB_OP_COUNT };

static const char *const dtype_names[PB_SPEED_DTYPES] = {"fp32", "fp16", "bf16"};
static const char *const others_name = "all";  // of the ops that are not listed

static pb_status fail_at(const char *file, const pb_yaml *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static pb_status fail_at(const char *file, const pb_yaml *node, const char *format, ...) {
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return pb_error(PB_ERR_FORMAT, "%s:%d:%d: %s", file, node->line, node->column, message);
}

static pb_status unknown(const char *file, const pb_yaml *node, const char *what, const char *const *names, int count) {
    const char *nearest = pb_nearest_name(node->key, names, count);
    return fail_at(file, node, "unknown %s `%.60s`%s%s%s; docs/machines.md lists them all", what, node->key,
                   nearest ? ": did you mean `" : "", nearest ? nearest : "", nearest ? "`?" : "");
}

// --- Reading ---

static pb_status read_number(const char *file, const pb_yaml *node, const char *name, const profile_key *key,
                             double *value) {
    if (node->type != PB_YAML_SCALAR || !pb_yaml_double(node, value) || *value < key->low || *value > key->high)
        return fail_at(file, node, "`%s` must be a number from %g to %g", name, key->low, key->high);
    return PB_OK;
}

static pb_status read_bytes(const char *file, const pb_yaml *node, const profile_key *key, uint64_t *bytes) {
    int64_t whole;
    double value;
    PB_RETURN_IF(read_number(file, node, key->name, key, &value));
    if (!pb_yaml_int(node, &whole)) {
        whole = (int64_t)value;  // 1e12
        if ((double)whole != value) return fail_at(file, node, "`%s` must be a whole number of bytes", key->name);
    }
    *bytes = (uint64_t)whole;
    return PB_OK;
}

// {fp32: [FLOPs per second, bytes per second], fp16: ..., bf16: ...}
static pb_status read_speeds(const char *file, const pb_yaml *node, const profile_key *key, pb_op_speed *row) {
    bool have[PB_SPEED_DTYPES] = {false};
    if (node->type != PB_YAML_MAPPING)
        return fail_at(file, node, "`%s` must have fp32, fp16 and bf16, each [FLOP/s, bytes/s]", node->key);
    for (const pb_yaml *m = node->first; m; m = m->next) {
        int d = 0;
        while (d < PB_SPEED_DTYPES && strcmp(m->key, dtype_names[d]) != 0) d++;
        if (d == PB_SPEED_DTYPES) return unknown(file, m, "dtype", dtype_names, PB_SPEED_DTYPES);
        if (m->type != PB_YAML_SEQUENCE || m->count != 2)
            return fail_at(file, m, "`%s` must be two numbers, [FLOP/s, bytes/s]", m->key);
        PB_RETURN_IF(read_number(file, m->first, "FLOP/s", key, &row[d].flops));
        PB_RETURN_IF(read_number(file, m->first->next, "bytes/s", key, &row[d].bandwidth));
        have[d] = true;
    }
    for (int d = 0; d < PB_SPEED_DTYPES; d++)
        if (!have[d]) return fail_at(file, node, "`%s` lacks %s", node->key, dtype_names[d]);
    return PB_OK;
}

static pb_status read_ops(const char *file, const pb_yaml *node, const profile_key *key, pb_machine *out) {
    bool have[PB_OP_COUNT + 1] = {false};
    pb_op_speed others[PB_SPEED_DTYPES];
    if (node->type != PB_YAML_MAPPING) return fail_at(file, node, "`ops` must be a list of ops, one a line");
    for (const pb_yaml *m = node->first; m; m = m->next) {
        const char *names[PB_OP_COUNT + 1];
        int op = -1;
        for (int i = 0; i <= PB_OP_COUNT; i++) {
            names[i] = i == OTHERS ? others_name : pb_op_name((pb_opcode)i);
            if (strcmp(m->key, names[i]) == 0) op = i;
        }
        if (op < 0) return unknown(file, m, "op", names, PB_OP_COUNT + 1);
        PB_RETURN_IF(read_speeds(file, m, key, op == OTHERS ? others : out->op[op]));
        have[op] = true;
    }
    for (int op = 0; op < PB_OP_COUNT; op++) {
        if (have[op]) continue;
        if (!have[OTHERS])
            return fail_at(file, node, "`ops` lacks %s, and `%s` for the ops that are not listed",
                           pb_op_name((pb_opcode)op), others_name);
        memcpy(out->op[op], others, sizeof others);
    }
    return PB_OK;
}

static pb_status read_key(const char *file, const pb_yaml *node, const profile_key *key, pb_machine *out) {
    void *field = (char *)out + key->offset;
    switch (key->kind) {
    case NAME:
        if (node->type != PB_YAML_SCALAR || !*node->text || strlen(node->text) >= sizeof out->name)
            return fail_at(file, node, "`name` must be a name of at most %zu bytes", sizeof out->name - 1);
        memcpy(out->name, node->text, strlen(node->text) + 1);
        return PB_OK;
    case FLAG: return pb_yaml_bool(node, field) ? PB_OK : fail_at(file, node, "`%s` must be true or false", key->name);
    case REAL:
    case OPTIONAL: return read_number(file, node, key->name, key, field);
    case BYTES: return read_bytes(file, node, key, field);
    default: return read_ops(file, node, key, out);
    }
}

// What no single number shows.
static pb_status check_whole(const char *file, const pb_yaml *root, const pb_machine *m) {
    const bool drive = m->nvme_bytes > 0;
    if (drive && (m->nvme_read < 1e3 || m->nvme_write < 1e3 || m->nvme_both < 1e3))
        return fail_at(file, root, "with nvme_bytes, nvme_read, nvme_write and nvme_both must be 1000 or more");
    return PB_OK;
}

pb_status pb_machine_profile_parse(pb_arena *arena, const char *text, size_t bytes, const char *name, pb_machine *out) {
    const pb_yaml *root;
    bool have[KEYS] = {false};
    *out = (pb_machine){0};
    PB_RETURN_IF(pb_yaml_parse(arena, text, bytes, name, &root));
    if (root->type != PB_YAML_MAPPING)
        return pb_error(PB_ERR_FORMAT, "%s: a machine profile is a list of `key: value` lines", name);
    for (const pb_yaml *m = root->first; m; m = m->next) {
        const char *names[KEYS];
        int k = -1;
        for (int i = 0; i < KEYS; i++) {
            names[i] = keys[i].name;
            if (strcmp(m->key, keys[i].name) == 0) k = i;
        }
        if (k < 0) return unknown(name, m, "key", names, KEYS);
        PB_RETURN_IF(read_key(name, m, &keys[k], out));
        have[k] = true;
    }
    for (int k = 0; k < KEYS; k++)
        if (!have[k] && keys[k].kind != OPTIONAL)
            return pb_error(PB_ERR_FORMAT, "%s: `%s` is missing; a profile has every key (docs/machines.md)", name,
                            keys[k].name);
    return check_whole(name, root, out);
}

pb_status pb_machine_profile_read(pb_arena *arena, const char *path, pb_machine *out) {
    char *text;
    size_t bytes;
    PB_RETURN_IF(pb_fs_read_file(arena, path, PB_YAML_BYTES, &text, &bytes));
    return pb_machine_profile_parse(arena, text, bytes, path, out);
}

pb_status pb_machine_find(pb_arena *arena, const char *name_or_path, pb_machine *out) {
    if (!name_or_path || strcmp(name_or_path, "this") == 0) return pb_machine_this(out);
    const pb_machine *builtin = pb_machine_builtin(name_or_path);
    if (builtin) {
        *out = *builtin;
        return PB_OK;
    }
    if (strchr(name_or_path, '/') || pb_fs_kind_of(name_or_path) != PB_FS_NONE)
        return pb_machine_profile_read(arena, name_or_path, out);
    const char *names[16] = {"this"};
    char list[256] = "this";
    int count = 1;
    for (const char *name; count < 16 && (name = pb_machine_builtin_name(count - 1)); count++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, ", %s", name);
        names[count] = name;
    }
    const char *nearest = pb_nearest_name(name_or_path, names, count);
    return pb_error(PB_ERR_USAGE, "there is no machine or file `%.100s`%s%s%s; machines: %s, or a profile's path",
                    name_or_path, nearest ? ": did you mean `" : "", nearest ? nearest : "", nearest ? "`?" : "", list);
}

// --- Writing ---

// As few digits as read back as the same double, with an exponent that is a multiple of 3: 25e9.
static const char *shortest(double value, char text[32]) {
    const int exponent = value == 0 ? 0 : (int)floor(log10(fabs(value)) / 3) * 3;
    for (int digits = 1; digits <= 17; digits++) {
        // The mantissa is only where the digits come from; what counts is that the whole reads back.
        snprintf(text, 32, "%.*g", digits, value / pow(10, exponent));
        if (strchr(text, 'e')) continue;
        const size_t used = strlen(text);
        if (exponent) snprintf(text + used, 32 - used, "e%d", exponent);
        if (strtod(text, NULL) == value) return text;
    }
    snprintf(text, 32, "%.17g", value);
    return text;
}

static void print_speeds(const char *name, const pb_op_speed *row, pb_text *text) {
    char flops[32], bandwidth[32];
    pb_text_append(text, "  %s: {", name);
    for (int d = 0; d < PB_SPEED_DTYPES; d++)
        pb_text_append(text, "%s%s: [%s, %s]", d ? ", " : "", dtype_names[d], shortest(row[d].flops, flops),
                       shortest(row[d].bandwidth, bandwidth));
    pb_text_append(text, "}\n");
}

static bool same_speeds(const pb_machine *m, int a, int b) {
    return memcmp(m->op[a], m->op[b], sizeof m->op[a]) == 0;
}

// The row that most ops have stands for all; then those that differ.
static void print_ops(const pb_machine *m, pb_text *text) {
    int most = 0, common = 0;
    for (int op = 0; op < PB_OP_COUNT; op++) {
        int count = 0;
        for (int other = 0; other < PB_OP_COUNT; other++) count += same_speeds(m, op, other);
        if (count > most) {
            most = count;
            common = op;
        }
    }
    pb_text_append(text,
                   "ops:  # [FLOP/s, bytes/s]: an op takes the overhead and the longer of FLOPs and bytes touched\n");
    print_speeds(others_name, m->op[common], text);
    for (int op = 0; op < PB_OP_COUNT; op++)
        if (!same_speeds(m, op, common)) print_speeds(pb_op_name((pb_opcode)op), m->op[op], text);
}

void pb_machine_profile_print(const pb_machine *machine, const char *heading, pb_text *text) {
    char number[32];
    pb_text_append(text, "%s", heading);
    for (int k = 0; k < KEYS; k++) {
        const void *field = (const char *)machine + keys[k].offset;
        if (keys[k].kind == OPS) {
            print_ops(machine, text);
            continue;
        }
        pb_text_append(text, "%s: ", keys[k].name);
        if (keys[k].kind == NAME)
            pb_text_append_json_string(text, field, strlen(field));
        else if (keys[k].kind == FLAG)
            pb_text_append(text, "%s", *(const bool *)field ? "true" : "false");
        else if (keys[k].kind == BYTES)
            pb_text_append(text, "%llu", (unsigned long long)*(const uint64_t *)field);
        else
            pb_text_append(text, "%s", shortest(*(const double *)field, number));
        pb_text_append(text, "%s%s\n", keys[k].comment ? "  # " : "", keys[k].comment ? keys[k].comment : "");
    }
}

pb_status pb_machine_profile_write(const char *path, const char *heading, const pb_machine *machine) {
    pb_text text = {0};
    pb_machine_profile_print(machine, heading, &text);
    pb_status status = text.failed ? pb_error(PB_ERR_MEMORY, "no memory for a machine profile")
                                   : pb_fs_write_file(path, text.data, text.bytes);
    pb_text_deinit(&text);
    return status;
}
