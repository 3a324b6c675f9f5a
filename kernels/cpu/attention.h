// What attention and its gradient share: shapes, and packing of one head's tokens.
#ifndef PB_KERNELS_CPU_ATTENTION_H
#define PB_KERNELS_CPU_ATTENTION_H

#include "base/op.h"
#include "kernels/cpu/gemm_kernels.h"

typedef struct pb_attention {
    pb_gemm_path path;
    pb_dtype dtype;
    int64_t images, heads, head;   // head: elements of one head
    int64_t queries, keys, width;  // tokens; elements of a token, heads * head
    int64_t columns;               // queries in a tile: two vectors
    int64_t head_units;            // units along a head
    float scale;
    bool causal;
} pb_attention;

// From q[N,..,heads*d] and k[N,..,heads*d].
pb_attention pb_attention_of(const pb_attr *attr, pb_tensor q, pb_tensor k);

// Where token `first` of (image, head) = item lies in a tensor of `tokens` tokens per image.
const char *pb_attention_token(const pb_attention *a, const void *data, int64_t tokens, int64_t item, int64_t first);

// Panels of `count` tokens, each panel at most `most` wide and all of nearly the same width, for products that run
// along the head: panel i holds pb_attention_height(count, most, i) tokens and starts at float
// head_units * (tokens before it).
void pb_attention_pack_along(const pb_attention *a, const char *tokens, int64_t count, int64_t most, float *panels);
// The same tokens for products that run along the tokens: panels of elements of the head, at float
// units(count) * (elements before it).
void pb_attention_pack_across(const pb_attention *a, const char *tokens, int64_t count, float *panels);
// A tile of up to `columns` tokens along the head, padded with zeros: [head_units, columns].
void pb_attention_pack_columns(const pb_attention *a, const char *tokens, int64_t count, float *panel);

// Rows of the i-th of the fewest panels of nearly equal height.
int64_t pb_attention_height(int64_t count, int64_t most, int64_t i);

// c[count, columns] (+)= panels x b, where the panels hold `count` rows of `units`; rows of c are `ldc` apart.
void pb_attention_multiply(const pb_attention *a, int64_t count, int64_t units, const float *panels, const float *b,
                           float *c, int64_t ldc, bool add);

// Writes tokens from x^T: element e of token t is x[e * stride + t]. scratch: head * columns floats.
void pb_attention_store(const pb_attention *a, char *tokens, const float *x, int64_t stride, int64_t count,
                        float *scratch);

// Scores of keys after their query become -infinity in scores[count, columns].
void pb_attention_mask(const pb_attention *a, float *scores, int64_t first_key, int64_t count, int64_t first_query);

#endif
