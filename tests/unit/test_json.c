// test: links=base
#include "check.h"

#include <stdlib.h>
#include <time.h>

#include "base/json.h"
#include "base/json_reader.h"
#include "base/utf8.h"

static pb_arena *arena;

static const pb_json *parse_n(const char *text, size_t bytes) {
    // A copy that ends where the text ends, so that the address sanitizer sees a read beyond it.
    char *copy = malloc(bytes ? bytes : 1);
    memcpy(copy, text, bytes);
    const pb_json *root = NULL;
    pb_error_clear();
    const pb_status status = pb_json_parse(arena, copy, bytes, "t.json", &root);
    free(copy);
    CHECK(status == PB_OK || status == PB_ERR_FORMAT);
    CHECK((status == PB_OK) == (root != NULL));
    CHECK((status == PB_OK) == (pb_error_message()[0] == '\0'));
    return root;
}

static const pb_json *parse(const char *text) {
    return parse_n(text, strlen(text));
}

static void test_values(void) {
    const pb_json *root = parse(" {\"a\": [1, -2.5e2, true, false, null, \"x\"], \"b\": {}, \"\": []} \n");
    CHECK(root && root->type == PB_JSON_OBJECT && root->count == 3);
    const pb_json *a = pb_json_get(root, "a");
    CHECK(a && a->type == PB_JSON_ARRAY && a->count == 6);
    const pb_json *i = a->first;
    CHECK(i->type == PB_JSON_NUMBER && i->is_integer && i->integer == 1 && i->number == 1.0 && !i->key);
    i = i->next;
    CHECK(i->type == PB_JSON_NUMBER && !i->is_integer && i->number == -250.0);
    i = i->next;
    CHECK(i->type == PB_JSON_BOOL && i->boolean);
    i = i->next;
    CHECK(i->type == PB_JSON_BOOL && !i->boolean);
    i = i->next;
    CHECK(i->type == PB_JSON_NULL);
    i = i->next;
    CHECK(i->type == PB_JSON_STRING && strcmp(i->string, "x") == 0 && i->string_bytes == 1 && !i->next);
    CHECK(pb_json_get(root, "b")->count == 0 && pb_json_get(root, "")->type == PB_JSON_ARRAY);
    CHECK(pb_json_get(root, "c") == NULL && pb_json_get(a, "c") == NULL && pb_json_get(NULL, "c") == NULL);
    CHECK(parse("3")->integer == 3 && parse("\"\"")->string_bytes == 0);
}

static void test_numbers(void) {
    CHECK(parse("9223372036854775807")->integer == INT64_MAX);
    CHECK(parse("-9223372036854775808")->integer == INT64_MIN);
    CHECK(!parse("9223372036854775808")->is_integer);
    CHECK(!parse("-9223372036854775809")->is_integer);
    // transformers writes int(1e30) for "no limit"; it is no integer of ours, and no reason to refuse the file.
    const pb_json *large = parse("1000000000000000019884624838656");
    CHECK(large && !large->is_integer && large->number == 1e30);
    CHECK(parse("-0")->is_integer && signbit(parse("-0")->number));
    CHECK(parse("0.1")->number == 0.1 && parse("1E+2")->number == 100 && parse("1e-999")->number == 0);
    static const char *const bad[] = {"01",       "-",        "+1",    "1.",     ".5",    "1e",  "1e+",   "0x10", "NaN",
                                      "Infinity", "-Infinit", "1e999", "-1e999", "1_000", "--1", "1e5.5", "00"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK_THAT(parse(bad[i]) == NULL, "%s accepted", bad[i]);
    char digits[500];
    memset(digits, '1', sizeof digits);
    CHECK(parse_n(digits, 300) != NULL && parse_n(digits, sizeof digits) == NULL);
}

static void test_strings(void) {
    const pb_json *s = parse("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\ud83d\\ude00\"");
    CHECK(s && strcmp(s->string, "\"\\/\b\f\n\r\tA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80") == 0);
    s = parse("\"a\\u0000b\"");
    CHECK(s && s->string_bytes == 3 && memcmp(s->string, "a\0b", 4) == 0);
    CHECK(parse("\"\xf0\x9f\x98\x80\"")->string_bytes == 4 && parse("\"\x7f\"") != NULL);
    static const char *const bad[] = {"\"",
                                      "\"\\\"",
                                      "\"\\",
                                      "\"\\x41\"",
                                      "\"\\u12\"",
                                      "\"\\u12g4\"",
                                      "\"\n\"",
                                      "\"\x01\"",
                                      "\"\\ud800\"",
                                      "\"\\udc00\"",
                                      "\"\\ud800\\u0041\"",
                                      "\"\\ud800x\\udc00\"",
                                      "\"\xff\"",
                                      "\"\xc0\x80\"",
                                      "\"\xe0\x80\x80\"",
                                      "\"\xed\xa0\x80\"",
                                      "\"\xf4\x90\x80\x80\"",
                                      "\"\xf0\x80\x80\x80\"",
                                      "\"\xe2\x82\"",
                                      "\"\xc3(\"",
                                      "\"\x80\"",
                                      "'a'",
                                      "\"\\ud800\\ud800\"",
                                      "\"\xf5\x80\x80\x80\""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK_THAT(parse(bad[i]) == NULL, "%s accepted", bad[i]);
    CHECK(parse_n("\"a\0b\"", 5) == NULL);  // a raw NUL is a control character
    CHECK(parse_n("\"\\\0\"", 4) == NULL);
}

static void test_structure(void) {
    static const char *const bad[] = {"",         " ",          "{",         "[",
                                      "]",        "}",          "[1",        "[1,",
                                      "[1,]",     "[,1]",       "[1 2]",     "{\"a\"}",
                                      "{\"a\":}", "{\"a\":1,}", "{a:1}",     "{\"a\":1 \"b\":2}",
                                      "{,}",      "{1:2}",      "[1}",       "{\"a\":1]",
                                      "1 2",      "nul",        "nulll",     "tru",
                                      "fals",     "True",       "[] x",      "\xef\xbb\xbf{}",
                                      "// c\n1",  "[1]]",       "{\"a\" 1}", "{\"a\":1",
                                      "[\"a",     "{\"a",       "\f1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK_THAT(parse(bad[i]) == NULL, "%s accepted", bad[i]);
    parse("{\n  \"a\": 1,\n  \"b\": tru\n}");
    CHECK_THAT(strncmp(pb_error_message(), "t.json:3:8: ", 12) == 0, "%s", pb_error_message());
}

static void test_depth(void) {
    char text[2 * PB_JSON_DEPTH + 2];
    memset(text, '[', PB_JSON_DEPTH + 1);
    memset(text + PB_JSON_DEPTH + 1, ']', PB_JSON_DEPTH + 1);
    CHECK(parse_n(text, 2 * PB_JSON_DEPTH + 2) == NULL);
    CHECK(parse_n(text + 1, 2 * PB_JSON_DEPTH) != NULL);
    const size_t many = 200000;
    char *open = malloc(many);
    memset(open, '[', many);
    const clock_t start = clock();
    CHECK(parse_n(open, many) == NULL);
    CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 0.05);
    free(open);
}

static void test_duplicates(void) {
    CHECK(parse("{\"a\":1,\"a\":2}") == NULL && strstr(pb_error_message(), "\"a\" twice"));
    CHECK(parse("{\"a\":1,\"\\u0061\":2}") == NULL);
    CHECK(parse("{\"a\":{\"a\":1},\"b\":{\"a\":1}}") != NULL);
    CHECK(parse("{\"\":1,\"\":2}") == NULL);
    CHECK(parse("{\"a\\u0000b\":1,\"a\\u0000c\":2,\"a\":3}") != NULL);
    // 100,000 keys: milliseconds when sorted, half a minute when compared pairwise.
    pb_text text = {0};
    pb_text_append(&text, "{");
    for (int i = 0; i < 100000; i++) pb_text_append(&text, "\"key.%d\":%d,", i, i);
    const size_t before = text.bytes;
    pb_text_append(&text, "\"last\":0}");
    const clock_t start = clock();
    const pb_json *root = parse_n(text.data, text.bytes);
    CHECK(root && root->count == 100001);
    CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 1.0);
    text.bytes = before;
    pb_text_append(&text, "\"key.5\":0}");
    CHECK(parse_n(text.data, text.bytes) == NULL);
    pb_text_deinit(&text);
}

static void test_getters(void) {
    const pb_json *o = parse("{\"i\": 5, \"d\": 2.5, \"b\": true, \"s\": \"x\", \"n\": null, \"nul\": \"a\\u0000\","
                             "\"huge\": 99999999999999999999}");
    int64_t i = 0;
    double d = 0;
    bool b = false;
    const char *s = NULL;
    CHECK_OK(pb_json_get_int(o, "i", 0, 10, 1, "f", &i));
    CHECK(i == 5);
    CHECK_OK(pb_json_get_int(o, "n", 0, 10, 7, "f", &i));
    CHECK(i == 7);
    CHECK_OK(pb_json_get_int(o, "absent", 0, 10, 8, "f", &i));
    CHECK(i == 8);
    CHECK(pb_json_get_int(o, "i", 6, 10, 1, "f", &i) == PB_ERR_FORMAT && strstr(pb_error_message(), "f: `i`"));
    CHECK(pb_json_get_int(o, "i", 0, 4, 1, "f", &i) == PB_ERR_FORMAT);
    CHECK(pb_json_get_int(o, "d", 0, 10, 1, "f", &i) == PB_ERR_FORMAT);
    CHECK(pb_json_get_int(o, "s", 0, 10, 1, "f", &i) == PB_ERR_FORMAT);
    CHECK(pb_json_get_int(o, "huge", INT64_MIN, INT64_MAX, 1, "f", &i) == PB_ERR_FORMAT);
    CHECK_OK(pb_json_get_double(o, "d", 1, "f", &d));
    CHECK(d == 2.5);
    CHECK_OK(pb_json_get_double(o, "i", 1, "f", &d));
    CHECK(d == 5);
    CHECK_OK(pb_json_get_double(o, "absent", 1.5, "f", &d));
    CHECK(d == 1.5);
    CHECK(pb_json_get_double(o, "b", 1, "f", &d) == PB_ERR_FORMAT);
    CHECK_OK(pb_json_get_bool(o, "b", false, "f", &b));
    CHECK(b);
    CHECK_OK(pb_json_get_bool(o, "absent", false, "f", &b));
    CHECK(!b);
    CHECK(pb_json_get_bool(o, "i", false, "f", &b) == PB_ERR_FORMAT);
    CHECK_OK(pb_json_get_string(o, "s", NULL, "f", &s));
    CHECK(s && strcmp(s, "x") == 0);
    CHECK_OK(pb_json_get_string(o, "absent", "y", "f", &s));
    CHECK(s && strcmp(s, "y") == 0);
    CHECK(pb_json_get_string(o, "nul", NULL, "f", &s) == PB_ERR_FORMAT);
    CHECK(pb_json_get_string(o, "i", NULL, "f", &s) == PB_ERR_FORMAT);
}

static void test_writing(void) {
    pb_text text = {0};
    const char raw[] = "a\"\\\b\f\n\r\t\x01\xc3\xa9\xff\0z";
    pb_text_append_json_string(&text, raw, sizeof raw - 1);
    CHECK(strcmp(text.data, "\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\xc3\xa9\xef\xbf\xbd\\u0000z\"") == 0);
    CHECK(parse(text.data) != NULL);
    pb_text_deinit(&text);
    static const double values[] = {
        0, 1, 100, 0.1, 1.0 / 3, 5e-6, 1e300, 5e-324, 123456789012345678.0, -2.5, 4503599627370497.5};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        pb_text_append_json_number(&text, values[i]);
        const pb_json *n = parse(text.data);
        CHECK_THAT(n && n->number == values[i], "%s", text.data);
        pb_text_deinit(&text);
    }
    pb_text_append_json_number(&text, 0.1);
    CHECK(strcmp(text.data, "0.1") == 0);
    pb_text_append_json_number(&text, NAN);
    pb_text_append_json_number(&text, -INFINITY);
    CHECK(strcmp(text.data, "0.1nullnull") == 0);
    pb_text_deinit(&text);
    for (int i = 0; i < 1000; i++) pb_text_append(&text, "%03d", i);
    CHECK(!text.failed && text.bytes == 3000 && strcmp(text.data + 2997, "999") == 0);
    pb_text_deinit(&text);
    CHECK(text.data == NULL && text.bytes == 0);
    static const char whole[] = "{\"a\":[1,0,-0,-2.5,true,false,null,\"x\\ny\",[],{}],\"b\":{\"c\":9007199254740993}}";
    pb_text_append_json(&text, parse(whole));
    CHECK_THAT(strcmp(text.data, whole) == 0, "%s", text.data);
    pb_text_deinit(&text);
}

int main(void) {
    arena = pb_arena_create();
    test_values();
    test_numbers();
    test_strings();
    test_structure();
    test_depth();
    test_duplicates();
    test_getters();
    test_writing();
    pb_arena_destroy(arena);
    return CHECK_DONE();
}
