// fuzz: links=base
// Any bytes as JSON. What is accepted prints, and the print reads back to the same print.
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Every member as every type.
static void get_members(const pb_json *object) {
    for (const pb_json *m = object->type == PB_JSON_OBJECT ? object->first : NULL; m; m = m->next) {
        if (strlen(m->key) != m->key_bytes) continue;
        int64_t integer;
        double number;
        bool boolean;
        const char *string;
        if (pb_json_get(object, m->key) != m) abort();
        if (pb_json_get_int(object, m->key, -9, 9, 0, "input", &integer) == PB_OK && (integer < -9 || integer > 9))
            abort();
        pb_json_get_double(object, m->key, 0, "input", &number);
        pb_json_get_bool(object, m->key, false, "input", &boolean);
        if (pb_json_get_string(object, m->key, "", "input", &string) == PB_OK && !string) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pb_arena *arena = pb_arena_create();
    const pb_json *root = NULL, *again = NULL;
    pb_text text = {0}, second = {0};
    pb_error_clear();
    if (!arena) return 0;
    if (pb_json_parse(arena, (const char *)data, size, "input", &root) != PB_OK) {
        if (root || !*pb_error_message()) abort();  // a failure leaves no tree, and says why
    } else {
        pb_text_append_json(&text, root);
        if (!text.failed && pb_json_parse(arena, text.data, text.bytes, "printed", &again) != PB_OK) abort();
        if (again) pb_text_append_json(&second, again);
        if (again && !second.failed && strcmp(text.data, second.data) != 0) abort();
        get_members(root);
    }
    pb_text_deinit(&text);
    pb_text_deinit(&second);
    pb_arena_destroy(arena);
    return 0;
}
