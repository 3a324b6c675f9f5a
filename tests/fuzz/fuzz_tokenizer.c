// fuzz: links=io,base
// Any bytes as a tokenizer's files and a text. The input is cut at bytes 0x1e; the first letter of a section says what
// it is: V(ocab.json), M(erges.txt), U(nified tokenizer.json), C(onfig), S(pecial_tokens_map), A(dded_tokens), T(ext).
// Without V and U there is a small vocabulary, so that texts and settings get past the door. What is encoded twice is
// the same, and all ids exist.
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char small_vocab[] =
    "{\"<|startoftext|>\": 0, \"<|endoftext|>\": 1, \"a\": 2, \"b\": 3, \"a</w>\": 4, \"b</w>\": 5, \"ab\": 6, "
    "\"ab</w>\": 7, \"abab\": 8, \"!\": 9, \"\\u010a\": 10, \"\\u00c3\": 11, \"\\u012b</w>\": 12, "
    "\"\\u00c3\\u012b</w>\": 13}";
static const char small_merges[] = "a b\na b</w>\nab ab\n\xc3\x83 \xc4\xab</w>\n";

static void encode(const pb_tokenizer *tokenizer, pb_tokenizer_text text) {
    enum { MOST = 128 };
    int32_t ids[MOST], again[MOST];
    int32_t length = pb_tokenizer_length(tokenizer);
    if (length > MOST) length = MOST;
    const pb_status status = pb_tokenizer_encode(tokenizer, text.data, text.bytes, length, ids);
    if (pb_tokenizer_encode(tokenizer, text.data, text.bytes, length, again) != status) abort();
    if (status != PB_OK) return;
    if (memcmp(ids, again, (size_t)length * sizeof *ids) != 0) abort();
    for (int32_t i = 0; i < length; i++)
        if (ids[i] < 0 || ids[i] >= pb_tokenizer_size(tokenizer)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pb_tokenizer_files files = {0};
    pb_tokenizer_text text = {.data = ""};
    for (size_t at = 0; at < size;) {
        const uint8_t *const end = memchr(data + at, 0x1e, size - at);
        const size_t bytes = (end ? (size_t)(end - data) : size) - at;
        const pb_tokenizer_text section = {(const char *)data + at + 1, bytes ? bytes - 1 : 0};
        switch (bytes ? data[at] : 0) {
        case 'V': files.vocab = section; break;
        case 'M': files.merges = section; break;
        case 'U': files.unified = section; break;
        case 'C': files.config = section; break;
        case 'S': files.special = section; break;
        case 'A': files.added = section; break;
        case 'T': text = section; break;
        default: break;
        }
        at += bytes + 1;
    }
    if (!files.vocab.data && !files.unified.data) {
        files.vocab = (pb_tokenizer_text){small_vocab, sizeof small_vocab - 1};
        if (!files.merges.data) files.merges = (pb_tokenizer_text){small_merges, sizeof small_merges - 1};
    }
    pb_tokenizer *tokenizer;
    if (pb_tokenizer_create_from(&files, "fuzz", &tokenizer) != PB_OK) return 0;
    encode(tokenizer, text);
    pb_tokenizer_destroy(tokenizer);
    return 0;
}
