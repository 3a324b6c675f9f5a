// test: links=io,base
#include "check.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "io/safetensors.h"
#include "scratch.h"

// A file of a header (its length in front) and `data_bytes` bytes of data that count upwards.
static const char *make_file(const char *header, size_t header_bytes, uint64_t claimed, size_t data_bytes) {
    const char *path = scratch_path("t.safetensors");
    FILE *f = fopen(path, "wb");
    fwrite(&claimed, 1, sizeof claimed, f);
    fwrite(header, 1, header_bytes, f);
    for (size_t i = 0; i < data_bytes; i++) fputc((int)(i & 255), f);
    fclose(f);
    return path;
}

static pb_safetensors *open_header(const char *header, size_t data_bytes) {
    pb_safetensors *file = NULL;
    pb_error_clear();
    const pb_status status = pb_safetensors_open(make_file(header, strlen(header), strlen(header), data_bytes), &file);
    CHECK(status == PB_OK || status == PB_ERR_FORMAT);
    CHECK((status == PB_OK) == (file != NULL));
    return file;
}

static bool accepts(const char *header, size_t data_bytes) {
    pb_safetensors *file = open_header(header, data_bytes);
    pb_safetensors_close(file);
    return file != NULL;
}

#define T(name, dtype, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin "," #end "]}"

static void test_reading(void) {
    pb_safetensors *file = open_header(
        "{" T("b", "F32", "2,1", 0, 8) "," T("a", "I64", "", 8, 16) ",\"__metadata__\":"
                                                                    "{\"format\":\"pt\",\"a\\u00e9\":\"\"}," T(
                                                                        "empty", "F16", "0,5", 8, 8) "}  ",
        16);
    CHECK(file && file->count == 3 && file->metadata_count == 2);
    if (!file) return;
    CHECK(strcmp(file->tensors[0].name, "a") == 0 && strcmp(file->tensors[2].name, "empty") == 0);
    const pb_safetensors_entry *b = pb_safetensors_find(file, "b"), *a = pb_safetensors_find(file, "a");
    CHECK(b && b->dtype == PB_F32 && strcmp(b->dtype_name, "F32") == 0 && b->rank == 2 && b->shape[0] == 2 &&
          b->elements == 2);
    CHECK(a && a->rank == 0 && a->elements == 1 && a->dtype == PB_I64);
    CHECK(pb_safetensors_find(file, "c") == NULL && pb_safetensors_find(file, "") == NULL);
    CHECK(strcmp(pb_safetensors_metadata_get(file, "format"), "pt") == 0);
    CHECK(strcmp(pb_safetensors_metadata_get(file, "a\xc3\xa9"), "") == 0 && !pb_safetensors_metadata_get(file, "x"));
    int64_t value = 0;
    CHECK_OK(pb_safetensors_read(file, a, PB_I64, &value));
    CHECK(value == 0x0f0e0d0c0b0a0908);
    float floats[2];
    CHECK_OK(pb_safetensors_read(file, b, PB_F32, floats));
    CHECK(pb_f32_bits(floats[1]) == 0x07060504);
    CHECK_OK(pb_safetensors_read_range(file, b, 1, 1, PB_F32, floats));
    CHECK(pb_f32_bits(floats[0]) == 0x07060504);
    uint16_t narrow[2];
    CHECK_OK(pb_safetensors_read(file, b, PB_BF16, narrow));
    CHECK(narrow[1] == 0x0706);
    unsigned char bytes[3];
    CHECK_OK(pb_safetensors_read_bytes(file, a, 5, 3, bytes));
    CHECK(memcmp(bytes, "\x0d\x0e\x0f", 3) == 0);
    CHECK(pb_safetensors_read_bytes(file, a, 5, 4, bytes) == PB_ERR_INTERNAL);
    CHECK(pb_safetensors_read_bytes(file, a, 9, 0, bytes) == PB_ERR_INTERNAL);
    CHECK(pb_safetensors_read_range(file, b, 1, 2, PB_F32, floats) == PB_ERR_INTERNAL);
    CHECK(pb_safetensors_read_range(file, b, 3, 0, PB_F32, floats) == PB_ERR_INTERNAL);
    CHECK(pb_safetensors_read(file, a, PB_F32, floats) == PB_ERR_UNSUPPORTED &&
          strstr(pb_error_message(), "\"a\" is I64"));
    CHECK_OK(pb_safetensors_read(file, pb_safetensors_find(file, "empty"), PB_F32, NULL));
    pb_safetensors_close(file);
    file = open_header("{}", 0);
    CHECK(file && !pb_safetensors_find(file, "a") && !pb_safetensors_metadata_get(file, "a"));
    pb_safetensors_close(file);
    pb_safetensors_close(NULL);
}

static void test_known_dtypes(void) {
    // Named by the format: the file opens, and the tensor is refused where it is used.
    pb_safetensors *file = open_header("{" T("a", "F8_E4M3", "4", 0, 4) "," T("b", "BOOL", "1", 4, 5) "," T(
                                           "c", "F4", "6", 5, 8) "," T("d", "U16", "1", 8, 10) "}",
                                       10);
    CHECK(file && file->count == 4);
    if (!file) return;
    float values[4];
    CHECK(pb_safetensors_read(file, file->tensors, PB_F32, values) == PB_ERR_UNSUPPORTED);
    CHECK(strstr(pb_error_message(), "\"a\" is F8_E4M3") != NULL);
    CHECK_OK(pb_safetensors_read_bytes(file, file->tensors, 0, 4, values));
    pb_safetensors_close(file);
    CHECK(!accepts("{" T("a", "F4", "5", 0, 3) "}", 3) && !accepts("{" T("a", "F16x", "1", 0, 2) "}", 2));
    CHECK(!accepts("{" T("a", "f32", "1", 0, 4) "}", 4) && !accepts("{" T("a", "", "1", 0, 4) "}", 4));
}

static void test_hostile_tables(void) {
    static const struct {
        const char *header;
        size_t data_bytes;
    } bad[] = {
        {"", 0},
        {" {}", 0},
        {"[]", 0},
        {"{", 0},
        {"{}x", 0},
        {"{} {}", 0},
        {"null", 0},
        {"\x7b\"a\"}", 0},
        {"{}", 1},                                                              // data that no tensor has
        {"{" T("a", "F32", "4194305, 4194305, 211106198978564", 0, 4) "}", 4},  // the product wraps to a small one
        {"{" T("a", "I8", "4294967296, 4294967296", 0, 0) "}", 0},              // wraps to 0
        {"{" T("a", "F64", "2305843009213693952", 0, 0) "}", 0},                // times 8 wraps to 0
        {"{" T("a", "F32", "4294967296, 4294967296, 0", 0, 0) "}", 0},          // nor does a zero excuse it
        {"{" T("a", "F32", "9223372036854775808", 0, 0) "}", 0},
        {"{" T("a", "F32", "-1", 0, 4) "}", 4},
        {"{" T("a", "F32", "-0", 0, 0) "}", 0},
        {"{" T("a", "F32", "1.0", 0, 4) "}", 4},
        {"{" T("a", "F32", "1e0", 0, 4) "}", 4},
        {"{" T("a", "F32", "\"1\"", 0, 4) "}", 4},
        {"{" T("a", "F32", "[1]", 0, 4) "}", 4},
        {"{" T("a", "F32", "1,1,1,1,1,1,1,1,1", 0, 4) "}", 4},               // rank 9
        {"{" T("a", "F32", "1", 0, 4) "," T("a", "F32", "1", 4, 8) "}", 8},  // a name twice
        {"{" T("a", "F32", "1", 0, 4) "," T("\\u0061", "F32", "1", 4, 8) "}", 8},
        {"{" T("a", "F32", "1", 0, 4) "," T("b", "F32", "1", 0, 4) "}", 4},    // the same bytes twice
        {"{" T("a", "F32", "2", 0, 8) "," T("b", "F32", "1", 4, 8) "}", 8},    // overlap
        {"{" T("a", "F32", "1", 0, 4) "," T("b", "F32", "1", 8, 12) "}", 12},  // a hole
        {"{" T("a", "F32", "1", 4, 8) "}", 8},                                 // a hole in front
        {"{" T("a", "F32", "1", 0, 4) "}", 8},
        {"{" T("a", "F32", "1", 0, 4) "}", 3},
        {"{" T("a", "F32", "2", 0, 4) "}", 4},
        {"{" T("a", "F32", "1", 4, 0) "}", 4},
        {"{" T("a", "F32", "0", 4, 4) "}", 0},                               // an empty one behind the end
        {"{" T("e", "F32", "0", 2, 2) "," T("a", "F32", "1", 0, 4) "}", 4},  // an empty one inside another
        {"{" T("a", "F32", "1", -4, 0) "}", 4},
        {"{" T("a", "F32", "1", 0, 18446744073709551620) "}", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4},
        {"{\"a\":[]}", 0},
        {"{\"a\":{}}", 0},
        {"{\"a\":null}", 0},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4},
        {"{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
        {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
        {"{\"__metadata__\":{\"a\":1}}", 0},
        {"{\"__metadata__\":[]}", 0},
        {"{\"__metadata__\":null}", 0},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0},
        {"{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", 0},
        {"{\"__metadata__\":{\"a\":\"\\u0000\"}}", 0},
        {"{\"\xff\":{}}", 0},
        {"{\"__metadata__\":{\"a\":{\"b\":\"\"}}}", 0},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_THAT(!accepts(bad[i].header, bad[i].data_bytes), "%s accepted", bad[i].header);
    CHECK(accepts("{}", 0) && accepts("{}    ", 0) && accepts("{\"__metadata__\":{}}", 0));
    CHECK(accepts("{" T("a", "F32", "1,1,1,1,1,1,1,1", 0, 4) "}", 4));
    // Empty tensors share an offset with their neighbour, on either side, as torch writes them.
    CHECK(accepts("{" T("e", "F32", "0", 4, 4) "," T("a", "F32", "1", 0, 4) "," T("f", "F32", "0", 0, 0) "}", 4));
    CHECK(strstr((open_header("{" T("who", "F32", "2", 0, 4) "}", 4), pb_error_message()), "\"who\"") != NULL);
}

static void test_hostile_lengths(void) {
    pb_safetensors *file = NULL;
    static const uint64_t claims[] = {3, 100, 100000001, 1ull << 32, 1ull << 63, UINT64_MAX, UINT64_MAX - 7, 0, 1};
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++)
        CHECK(pb_safetensors_open(make_file("{}", 2, claims[i], 0), &file) == PB_ERR_FORMAT);
    const char *path = scratch_path("short");
    CHECK_OK(pb_fs_write_file(path, "1234567", 7));
    CHECK(pb_safetensors_open(path, &file) == PB_ERR_FORMAT);
    CHECK_OK(pb_fs_write_file(path, "", 0));
    CHECK(pb_safetensors_open(path, &file) == PB_ERR_FORMAT);
    CHECK(pb_safetensors_open(scratch_path("absent"), &file) == PB_ERR_IO);
    CHECK(pb_safetensors_open(scratch_directory, &file) == PB_ERR_IO && file == NULL);
    // A sparse file of 100 GB does not make its claims any truer.
    path = make_file("{}", 2, 2, 0);
    CHECK(truncate(path, 100ll << 30) == 0 && pb_safetensors_open(path, &file) == PB_ERR_FORMAT);
    // Every truncation of a good file.
    static const char header[] = "{" T("a", "F32", "2", 0, 8) "}";
    path = make_file(header, strlen(header), strlen(header), 8);
    for (long size = (long)strlen(header) + 15; size >= 0; size--)
        CHECK(truncate(path, size) == 0 && pb_safetensors_open(path, &file) == PB_ERR_FORMAT);
}

static long resident_kilobytes(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

// Large headers: many tensors, many empty values, deep nesting, one long string. None may take long or much memory.
static void test_large_headers(void) {
    pb_text text = {0};
    pb_safetensors *file = NULL;
    for (int count = PB_ST_TENSORS; count <= 100000; count += 100000 - PB_ST_TENSORS) {
        pb_text_append(&text, "{");
        for (int i = 0; i < count; i++)
            pb_text_append(&text, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "", i);
        pb_text_append(&text, "}");
        const char *path = make_file(text.data, text.bytes, text.bytes, 0);
        const clock_t start = clock();
        const pb_status status = pb_safetensors_open(path, &file);
        CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 2);
        CHECK(count == PB_ST_TENSORS ? status == PB_OK && file->count == PB_ST_TENSORS : status == PB_ERR_FORMAT);
        pb_safetensors_close(file);
        file = NULL;
        text.bytes = 0;
    }
    static const char *const starts[] = {"{\"a\":{\"shape\":[", "{\"__metadata__\":{\"",
                                         "{\"a\":{\"dtype\":\"F32\",\"shape\":["};
    static const char *const fillers[] = {"0,", "x", "["};
    pb_text_deinit(&text);
    const size_t bytes = 30u << 20;
    char *header = malloc(bytes);
    const long before = resident_kilobytes();
    for (int i = 0; i < 3; i++) {
        const size_t start_bytes = strlen(starts[i]), filler_bytes = strlen(fillers[i]);
        memcpy(header, starts[i], start_bytes);
        for (size_t k = start_bytes; k < bytes; k++) header[k] = fillers[i][(k - start_bytes) % filler_bytes];
        const char *path = make_file(header, bytes, bytes, 0);
        const clock_t start = clock();
        CHECK(pb_safetensors_open(path, &file) == PB_ERR_FORMAT);
        CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 2);
    }
    CHECK(resident_kilobytes() - before < 256 * 1024);
    free(header);
}

static void test_writing(void) {
    const char *path = scratch_path("w.safetensors");
    pb_safetensors_writer *writer = NULL;
    CHECK_OK(pb_safetensors_writer_create(&writer));
    CHECK_OK(pb_safetensors_writer_declare(writer, "half", PB_F16, 2, (int64_t[]){2, 3}));
    CHECK_OK(pb_safetensors_writer_declare(writer, "z \"quoted\"", PB_F32, 0, NULL));
    CHECK_OK(pb_safetensors_writer_declare(writer, "a", PB_F32, 1, (int64_t[]){40000}));
    CHECK_OK(pb_safetensors_writer_declare(writer, "ids", PB_I64, 1, (int64_t[]){1}));
    CHECK_OK(pb_safetensors_writer_declare(writer, "none", PB_F32, 1, (int64_t[]){0}));
    CHECK(pb_safetensors_writer_declare(writer, "bad", PB_F32, 9, (int64_t[9]){0}) == PB_ERR_FORMAT);
    CHECK(pb_safetensors_writer_declare(writer, "bad", PB_F32, 1, (int64_t[]){-1}) == PB_ERR_FORMAT);
    CHECK_OK(pb_safetensors_writer_metadata(writer, "step", "7"));
    CHECK_OK(pb_safetensors_writer_open(writer, path));
    static const char *const order[] = {"ids", "a", "none", "z \"quoted\"", "half"};
    CHECK(pb_safetensors_writer_count(writer) == 5);
    for (size_t i = 0; i < 5; i++) CHECK(strcmp(pb_safetensors_writer_entry(writer, i)->name, order[i]) == 0);
    CHECK(pb_fs_kind_of(path) == PB_FS_NONE);
    static double values[40000];
    for (int i = 0; i < 40000; i++) values[i] = i * 0.25;
    const int64_t id = 42;
    CHECK(pb_safetensors_writer_convert(writer, PB_F64, values, 1) == PB_ERR_INTERNAL);  // the current tensor is I64
    CHECK_OK(pb_safetensors_writer_convert(writer, PB_I64, &id, 1));
    CHECK_OK(pb_safetensors_writer_convert(writer, PB_F64, values, 15));
    CHECK_OK(pb_safetensors_writer_convert(writer, PB_F64, values + 15, 39985));
    CHECK(pb_safetensors_writer_convert(writer, PB_F64, values, 2) == PB_ERR_INTERNAL);  // the scalar has one
    CHECK(pb_safetensors_writer_finish(writer) == PB_ERR_INTERNAL && strstr(pb_error_message(), "16 bytes"));
    const struct {
        float scalar;
        uint16_t half[6];
    } rest = {1.5f, {0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600}};
    CHECK_OK(pb_safetensors_writer_write(writer, &rest, 7));
    CHECK_OK(pb_safetensors_writer_write(writer, (const char *)&rest + 7, 9));
    CHECK(pb_safetensors_writer_write(writer, &rest, 1) == PB_ERR_INTERNAL);
    CHECK_OK(pb_safetensors_writer_finish(writer));
    pb_safetensors_writer_destroy(writer);
    pb_safetensors *file = NULL;
    CHECK_OK(pb_safetensors_open(path, &file));
    if (!file) return;
    CHECK(file->count == 5 && strcmp(pb_safetensors_metadata_get(file, "step"), "7") == 0);
    CHECK(strcmp(pb_safetensors_metadata_get(file, "format"), "pt") == 0);
    static float back[40000];
    CHECK_OK(pb_safetensors_read(file, pb_safetensors_find(file, "a"), PB_F32, back));
    int wrong = 0;
    for (int i = 0; i < 40000; i++) wrong += back[i] != (float)values[i];
    CHECK(wrong == 0);
    CHECK_OK(pb_safetensors_read_range(file, pb_safetensors_find(file, "half"), 2, 4, PB_F32, back));
    CHECK(back[0] == 3 && back[3] == 6);
    CHECK_OK(pb_safetensors_read(file, pb_safetensors_find(file, "z \"quoted\""), PB_F32, back));
    CHECK(back[0] == 1.5f);
    CHECK(pb_safetensors_find(file, "a")->offset % 8 == 0);
    pb_safetensors_close(file);
}

static void test_writing_stops(void) {
    const char *path = scratch_path("stop.safetensors");
    pb_safetensors_writer *writer = NULL;
    CHECK_OK(pb_safetensors_writer_create(&writer));
    CHECK_OK(pb_safetensors_writer_declare(writer, "a", PB_F32, 1, (int64_t[]){2}));
    CHECK(pb_safetensors_writer_write(writer, "xxxx", 4) == PB_ERR_INTERNAL);
    CHECK_OK(pb_safetensors_writer_open(writer, path));
    CHECK_OK(pb_safetensors_writer_write(writer, "xxxx", 4));
    pb_safetensors_writer_destroy(writer);
    const char **names;
    size_t count = 0;
    pb_arena *arena = pb_arena_create();
    CHECK_OK(pb_fs_list(arena, scratch_directory, &names, &count));
    for (size_t i = 0; i < count; i++) CHECK_THAT(!strstr(names[i], "stop"), "%s was left behind", names[i]);
    // More than any disk has: refused before a byte is written.
    CHECK_OK(pb_safetensors_writer_create(&writer));
    CHECK_OK(pb_safetensors_writer_declare(writer, "a", PB_F32, 1, (int64_t[]){1ll << 56}));
    CHECK(pb_safetensors_writer_open(writer, path) == PB_ERR_IO &&
          strstr(pb_error_message(), "stop.safetensors needs"));
    pb_safetensors_writer_destroy(writer);
    // Twice the same name.
    const float x = 1;
    const pb_safetensors_array twice[] = {{"a", PB_F32, 0, {0}, &x}, {"a", PB_F16, 0, {0}, &x}};
    CHECK(pb_safetensors_save(path, twice, 2) == PB_ERR_FORMAT && pb_fs_kind_of(path) == PB_FS_NONE);
    CHECK_OK(pb_safetensors_save(path, twice, 1));
    // Without a name of its own until the caller says so.
    CHECK_OK(pb_safetensors_writer_create(&writer));
    CHECK_OK(pb_safetensors_writer_declare(writer, "b", PB_F32, 1, (int64_t[]){1}));
    CHECK_OK(pb_safetensors_writer_open(writer, path));
    CHECK_OK(pb_safetensors_writer_write(writer, &x, 4));
    char *temporary = NULL;
    CHECK_OK(pb_safetensors_writer_finish_unnamed(writer, &temporary));
    pb_safetensors_writer_destroy(writer);
    pb_safetensors *file = NULL;
    CHECK_OK(pb_safetensors_open(temporary, &file));
    CHECK(file && pb_safetensors_find(file, "b"));
    pb_safetensors_close(file);
    unlink(temporary);
    free(temporary);
    pb_arena_destroy(arena);
}

// tests/golden/make_safetensors.py made the file with the official writer.
static void test_official_file(void) {
    static const char golden[] = PB_TEST_DATA "/golden/official.safetensors";
    pb_safetensors *file = NULL;
    CHECK_OK(pb_safetensors_open(golden, &file));
    if (!file) return;
    pb_safetensors_writer *writer = NULL;
    CHECK_OK(pb_safetensors_writer_create(&writer));
    for (size_t i = 0; i < file->count; i++) CHECK_OK(pb_safetensors_writer_declare_like(writer, &file->tensors[i]));
    const char *path = scratch_path("again.safetensors");
    CHECK_OK(pb_safetensors_writer_open(writer, path));
    for (size_t i = 0; i < file->count; i++) {
        unsigned char bytes[256];
        const pb_safetensors_entry *entry = pb_safetensors_find(file, pb_safetensors_writer_entry(writer, i)->name);
        CHECK(entry->bytes <= sizeof bytes);
        CHECK_OK(pb_safetensors_read_bytes(file, entry, 0, entry->bytes, bytes));
        CHECK_OK(pb_safetensors_writer_write(writer, bytes, entry->bytes));
    }
    CHECK_OK(pb_safetensors_writer_finish(writer));
    pb_safetensors_writer_destroy(writer);
    pb_safetensors_close(file);
    pb_arena *arena = pb_arena_create();
    char *ours = NULL, *theirs = NULL;
    size_t our_bytes = 0, their_bytes = 0;
    CHECK_OK(pb_fs_read_file(arena, path, 1 << 20, &ours, &our_bytes));
    CHECK_OK(pb_fs_read_file(arena, golden, 1 << 20, &theirs, &their_bytes));
    CHECK(our_bytes == their_bytes && memcmp(ours, theirs, our_bytes) == 0);
    pb_arena_destroy(arena);
}

int main(void) {
    test_reading();
    test_known_dtypes();
    test_hostile_tables();
    test_hostile_lengths();
    test_large_headers();
    test_writing();
    test_writing_stops();
    test_official_file();
    scratch_remove();
    return CHECK_DONE();
}
