// test: links=io,base
#include "check.h"

#include <stdlib.h>
#include <time.h>

#include "io/yaml.h"

static pb_arena *arena;

static const pb_yaml *parse_n(const char *text, size_t bytes) {
    char *copy = malloc(bytes ? bytes : 1);  // the address sanitizer sees where it ends
    memcpy(copy, text, bytes);
    const pb_yaml *root = NULL;
    pb_error_clear();
    const clock_t start = clock();
    const pb_status status = pb_yaml_parse(arena, copy, bytes, "t.yaml", &root);
    CHECK_THAT((double)(clock() - start) / CLOCKS_PER_SEC < 0.2, "%.30s took long", text);
    free(copy);
    CHECK(status == PB_OK || status == PB_ERR_FORMAT);
    CHECK((status == PB_OK) == (root != NULL));
    return root;
}

static const pb_yaml *parse(const char *text) {
    return parse_n(text, strlen(text));
}

static void test_tree(void) {
    const pb_yaml *root = parse(
        "# settings\na: 1\nb: {c: [x, 'y z', \"q\\n\"], d: }\n\"e f\": |\n  two\n  lines\ng: a photo of sks dog\n");
    CHECK(root && root->type == PB_YAML_MAPPING && root->count == 4);
    const pb_yaml *a = pb_yaml_get(root, "a"), *b = pb_yaml_get(root, "b"), *e = pb_yaml_get(root, "e f");
    CHECK(a && strcmp(a->text, "1") == 0 && a->plain && a->line == 2 && a->column == 1);
    CHECK(b && b->type == PB_YAML_MAPPING && b->count == 2 && b->line == 3);
    const pb_yaml *c = pb_yaml_get(b, "c");
    CHECK(c && c->type == PB_YAML_SEQUENCE && c->count == 3 && c->first->plain && !c->first->next->plain);
    CHECK(strcmp(c->first->next->text, "y z") == 0 && strcmp(c->first->next->next->text, "q\n") == 0);
    CHECK(pb_yaml_is_null(pb_yaml_get(b, "d")) && e && strcmp(e->text, "two\nlines\n") == 0 && !e->plain);
    CHECK(strcmp(pb_yaml_get(root, "g")->text, "a photo of sks dog") == 0 && pb_yaml_get(root, "z") == NULL);
    CHECK(pb_yaml_get(a, "x") == NULL);
    root = parse("\xef\xbb\xbf"
                 "a: 1\nb: 2\n");  // a byte order mark
    CHECK(root && root->count == 2 && pb_yaml_get(root, "a"));
    static const char *const empty[] = {"", "# only a comment\n", "---\n", "---\n...\n", "{}"};
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        root = parse(empty[i]);
        CHECK_THAT(root && root->type == PB_YAML_MAPPING && root->count == 0, "%s", empty[i]);
    }
}

static void test_refused(void) {
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"a: &x 1\nb: *x\n", "t.yaml:1:4: anchors"},
        {"a:\n\tb: 1\n", "t.yaml:2:1: a tab"},
        {"a: 1\nb: x \xff\n", "t.yaml:2:6: "},
        {"\xef\xbb\xbf"
         "a: 1\na: 2\n",
         "t.yaml:2:1: the key"},
        {"b: *x\n", "t.yaml:1:4: aliases"},
        {"a: &x {b: 1}", "anchors"},
        {"a: &x [1]", "anchors"},
        {"a: !!int 1", "tags"},
        {"a: !!map {}", "tags"},
        {"a: !x [1]", "tags"},
        {"a: 1\na: 2\n", "t.yaml:2:1: the key `a` is there twice"},
        {"a: {b: 1, c: 2, b: 3}\n", "`b` is there twice"},
        {"? [1, 2]\n: 3\n", "a key must be a scalar"},
        {"{a: 1}: 2", "a key must be a scalar"},
        {"a: 1\n---\nb: 2\n", "second document"},
        {"a: [1, 2\n", "t.yaml:2:1"},
        {"a: 'x\n", "t.yaml:2:1"},
        {"a: b: c\n", "t.yaml:1:5"},
        {"a:\n\t- b\n", "t.yaml:2"},
        {"a: \"\\x\"\n", "t.yaml:1"},
        {"a: \xff\n", "t.yaml"},
        {"a: \"\\0\"\n", "NUL"},
        {"\xff\xfe"
         "a",
         "t.yaml"},
        {"a: \x01\n", "t.yaml"},
        {"%TAG ! x\n---\na: 1", "t.yaml"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_THAT(parse(bad[i].text) == NULL, "%s accepted", bad[i].text);
        CHECK_THAT(strstr(pb_error_message(), bad[i].message), "%s: %s", bad[i].text, pb_error_message());
    }
    CHECK(parse_n("a: 1\0b: 2", 9) == NULL);
}

static char *repeat(const char *piece, size_t bytes) {
    char *text = malloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++) text[i] = piece[i % strlen(piece)];
    text[bytes] = '\0';
    return text;
}

static void test_limits(void) {
    static const char *const pieces[] = {"[",   "{",   "- ",  "? ",  "[a,", "{a: ",    "[]",     "'",
                                         "\"",  "&a ", "!a ", "*a ", "-\n", "a:\n",    "a: b\n", ": ",
                                         "|\n", "# ",  "\n",  " ",   "%",   "[\"]\",", "a,"};
    static const size_t sizes[] = {PB_YAML_BYTES, PB_YAML_BYTES + 1, 200000};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        for (size_t s = 0; s < 3; s++) {
            char *text = repeat(pieces[i], sizes[s]);
            const bool harmless = strchr(" \n#a'", pieces[i][0]) != NULL;  // blank, or one long scalar
            const pb_yaml *root = parse_n(text, sizes[s]);
            CHECK_THAT(!root || (harmless && s == 0), "%zu of %s", sizes[s], pieces[i]);
            free(text);
        }
    }
    // 32 levels are fine, in either style; one more is not.
    for (int levels = PB_YAML_DEPTH; levels <= PB_YAML_DEPTH + 1; levels++) {
        char *open = repeat("[", (size_t)levels), *close = repeat("]", (size_t)levels),
             *dashes = repeat("- ", 2 * (size_t)levels);
        char text[200];
        snprintf(text, sizeof text, "%s%s", open, close);
        CHECK((parse(text) != NULL) == (levels == PB_YAML_DEPTH));
        snprintf(text, sizeof text, "%sx", dashes);
        CHECK((parse(text) != NULL) == (levels == PB_YAML_DEPTH));
        free(open);
        free(close);
        free(dashes);
    }
}

static void test_scalars(void) {
    bool b = false;
    int64_t i = 0;
    double d = 0;
    const pb_yaml *root =
        parse("[1e-4, 1_000, no, yes, true, False, 0x10, 0o7, .5, 5., ., -3, +4, 1e999, .inf, nan, ~, null, '',"
              " '1', 99999999999999999999, 007, 1e, 1e+, --1, 1.5.2, -, 12:30]");
    static const struct {
        bool is_null, is_bool, is_int, is_double;
    } expected[] = {{0, 0, 0, 1}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 1, 0, 0}, {0, 1, 0, 0}, {0, 0, 0, 0},
                    {0, 0, 0, 0}, {0, 0, 0, 1}, {0, 0, 0, 1}, {0, 0, 0, 0}, {0, 0, 1, 1}, {0, 0, 1, 1}, {0, 0, 0, 0},
                    {0, 0, 0, 0}, {0, 0, 0, 0}, {1, 0, 0, 0}, {1, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 1},
                    {0, 0, 1, 1}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}};
    CHECK(root && root->count == sizeof expected / sizeof *expected);
    size_t k = 0;
    for (const pb_yaml *n = root ? root->first : NULL; n; n = n->next, k++) {
        CHECK_THAT(pb_yaml_is_null(n) == expected[k].is_null, "null: %s", n->text);
        CHECK_THAT(pb_yaml_bool(n, &b) == expected[k].is_bool, "bool: %s", n->text);
        CHECK_THAT(pb_yaml_int(n, &i) == expected[k].is_int, "int: %s", n->text);
        CHECK_THAT(pb_yaml_double(n, &d) == expected[k].is_double, "double: %s", n->text);
    }
    CHECK(pb_yaml_double(parse("[1e-4]")->first, &d) && d == 1e-4);
    CHECK(pb_yaml_int(parse("[-42]")->first, &i) && i == -42);
    CHECK(pb_yaml_bool(parse("[TRUE]")->first, &b) && b);
    CHECK(!pb_yaml_is_null(parse("[[]]")->first) && !pb_yaml_int(parse("[[]]")->first, &i));
}

int main(void) {
    arena = pb_arena_create();
    test_tree();
    test_refused();
    test_limits();
    test_scalars();
    pb_arena_destroy(arena);
    return CHECK_DONE();
}
