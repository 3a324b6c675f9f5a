#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#include "base/json_reader.h"

static int compare_bytes(const char *a, size_t a_bytes, const char *b, size_t b_bytes) {
    const int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    return order ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static int compare_keys(const void *a, const void *b) {
    const pb_json *x = *(const pb_json *const *)a, *y = *(const pb_json *const *)b;
    return compare_bytes(x->key, x->key_bytes, y->key, y->key_bytes);
}

static void sort_members(const pb_json *object, const pb_json **members) {
    size_t i = 0;
    for (const pb_json *m = object->first; m; m = m->next) members[i++] = m;
    qsort(members, object->count, sizeof *members, compare_keys);
}

// Sorting, not hashing: keys chosen to collide cost nothing.
static pb_status refuse_duplicates(const pb_json_reader *reader, const pb_json *object) {
    if (object->count < 2) return PB_OK;
    const pb_json *few[16], **members = few;
    if (object->count > sizeof few / sizeof *few) members = malloc(object->count * sizeof *members);
    if (!members) return pb_error(PB_ERR_MEMORY, "%s: no memory", reader->name);
    sort_members(object, members);
    pb_status status = PB_OK;
    for (size_t i = 1; i < object->count && status == PB_OK; i++)
        if (compare_keys(&members[i - 1], &members[i]) == 0)
            status =
                pb_json_reader_error(reader, "the object that ends here has the key \"%.100s\" twice", members[i]->key);
    if (members != few) free(members);
    return status;
}

static char *copy_string(pb_arena *arena, const pb_json_reader *reader) {
    char *text = pb_arena_alloc(arena, reader->string_bytes + 1);
    if (text) pb_json_reader_string(reader, text);
    return text;
}

// Fills a new node from the token that begins a value.
static pb_status fill_node(pb_arena *arena, const pb_json_reader *reader, pb_json_token token, pb_json *node) {
    switch (token) {
    case PB_JSON_OBJECT_BEGIN: node->type = PB_JSON_OBJECT; return PB_OK;
    case PB_JSON_ARRAY_BEGIN: node->type = PB_JSON_ARRAY; return PB_OK;
    case PB_JSON_VALUE_TRUE:
    case PB_JSON_VALUE_FALSE:
        node->type = PB_JSON_BOOL;
        node->boolean = token == PB_JSON_VALUE_TRUE;
        return PB_OK;
    case PB_JSON_VALUE_STRING:
        node->type = PB_JSON_STRING;
        node->string = copy_string(arena, reader);
        node->string_bytes = reader->string_bytes;
        return node->string ? PB_OK : pb_error(PB_ERR_MEMORY, "%s: no memory", reader->name);
    case PB_JSON_VALUE_NUMBER:
        node->type = PB_JSON_NUMBER;
        return pb_json_reader_number(reader, &node->is_integer, &node->integer, &node->number);
    default: node->type = PB_JSON_NULL; return PB_OK;
    }
}

pb_status pb_json_parse(pb_arena *arena, const char *text, size_t bytes, const char *name, const pb_json **root) {
    pb_json_reader reader = pb_json_reader_make(text, bytes, name);
    // The open objects and arrays with their last child; level 0 holds the root as its only child.
    pb_json top = {0}, *open[PB_JSON_DEPTH + 1] = {&top}, *last[PB_JSON_DEPTH + 1] = {0};
    const char *key = NULL;
    size_t key_bytes = 0;
    int depth = 0;
    for (;;) {
        pb_json_token token;
        PB_RETURN_IF(pb_json_reader_next(&reader, &token));
        if (token == PB_JSON_FINISHED) break;
        if (token == PB_JSON_KEY) {
            key = copy_string(arena, &reader);
            key_bytes = reader.string_bytes;
            if (!key) return pb_error(PB_ERR_MEMORY, "%s: no memory", name);
            continue;
        }
        if (token == PB_JSON_OBJECT_END || token == PB_JSON_ARRAY_END) {
            PB_RETURN_IF(token == PB_JSON_OBJECT_END ? refuse_duplicates(&reader, open[depth]) : PB_OK);
            depth--;
            continue;
        }
        pb_json *node = pb_arena_alloc(arena, sizeof *node);
        if (!node) return pb_error(PB_ERR_MEMORY, "%s: no memory", name);
        node->key = key;
        node->key_bytes = key_bytes;
        key = NULL;
        key_bytes = 0;
        PB_RETURN_IF(fill_node(arena, &reader, token, node));
        if (last[depth])
            last[depth]->next = node;
        else
            open[depth]->first = node;
        last[depth] = node;
        open[depth]->count++;
        if (token == PB_JSON_OBJECT_BEGIN || token == PB_JSON_ARRAY_BEGIN) {
            open[++depth] = node;
            last[depth] = NULL;
        }
    }
    *root = top.first;
    return PB_OK;
}

const pb_json *pb_json_get(const pb_json *object, const char *key) {
    if (!object || object->type != PB_JSON_OBJECT) return NULL;
    const size_t bytes = strlen(key);
    for (const pb_json *m = object->first; m; m = m->next)
        if (m->key_bytes == bytes && memcmp(m->key, key, bytes) == 0) return m;
    return NULL;
}

// The member, or NULL where it is absent or null and the fallback holds.
static const pb_json *find_set(const pb_json *object, const char *key) {
    const pb_json *m = pb_json_get(object, key);
    return m && m->type != PB_JSON_NULL ? m : NULL;
}

pb_status pb_json_get_int(const pb_json *object, const char *key, int64_t low, int64_t high, int64_t fallback,
                          const char *name, int64_t *value) {
    const pb_json *m = find_set(object, key);
    *value = fallback;
    if (!m) return PB_OK;
    if (m->type != PB_JSON_NUMBER || !m->is_integer || m->integer < low || m->integer > high)
        return pb_error(PB_ERR_FORMAT, "%s: `%s` must be a whole number from %lld to %lld", name, key, (long long)low,
                        (long long)high);
    *value = m->integer;
    return PB_OK;
}

pb_status pb_json_get_double(const pb_json *object, const char *key, double fallback, const char *name, double *value) {
    const pb_json *m = find_set(object, key);
    *value = fallback;
    if (!m) return PB_OK;
    if (m->type != PB_JSON_NUMBER) return pb_error(PB_ERR_FORMAT, "%s: `%s` must be a number", name, key);
    *value = m->number;
    return PB_OK;
}

pb_status pb_json_get_bool(const pb_json *object, const char *key, bool fallback, const char *name, bool *value) {
    const pb_json *m = find_set(object, key);
    *value = fallback;
    if (!m) return PB_OK;
    if (m->type != PB_JSON_BOOL) return pb_error(PB_ERR_FORMAT, "%s: `%s` must be true or false", name, key);
    *value = m->boolean;
    return PB_OK;
}

pb_status pb_json_get_string(const pb_json *object, const char *key, const char *fallback, const char *name,
                             const char **value) {
    const pb_json *m = find_set(object, key);
    *value = fallback;
    if (!m) return PB_OK;
    if (m->type != PB_JSON_STRING || strlen(m->string) != m->string_bytes)
        return pb_error(PB_ERR_FORMAT, "%s: `%s` must be a string without NUL characters", name, key);
    *value = m->string;
    return PB_OK;
}
