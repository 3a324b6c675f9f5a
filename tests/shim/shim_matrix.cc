// The matrix instructions of compat.h, from their description in PTX. Who holds which element: with g = lane / 4 and
// t = lane % 4, register r, half h,
//   left[16,16]   row g + 8 (r % 2), column 2t + h + 8 (r / 2)
//   right[16,8]   row 2t + h + 8 r, column g
//   sums[16,8]    row g + 8 (r / 2), column 2t + r % 2
#include "shim_runtime.h"

static bool units = true;
static uint64_t products;

uint64_t shim_matrix_products(void) {
    return products;
}

bool has_matrix_units(void) {
    return units;
}

void shim_set_matrix_units(bool present) {
    units = present;
}

static void load(const uint16_t *row, bool transposed, uint32_t *x, const void *from) {
    const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    if ((uintptr_t)row % 16) shim_fault("a matrix's row at %p is not aligned", (const void *)row);
    if (!shim_is_shared(row, 16)) shim_fault("a matrix's row lies in what is not shared memory");
    watch_rows(row, from);
    for (unsigned i = 0; i < 4; i++) {
        const uint16_t *low, *high;
        shim_shuffle(&row, &low, sizeof row, i * 8 + (transposed ? 2 * t : g));
        shim_shuffle(&row, &high, sizeof row, i * 8 + (transposed ? 2 * t + 1 : g));
        x[i] = (uint32_t)low[transposed ? g : 2 * t] | (uint32_t)high[transposed ? g : 2 * t + 1] << 16;
    }
}

void load_matrices(const uint16_t *row, uint32_t (&x)[4]) {
    load(row, false, x, __builtin_return_address(0));
}

void load_matrices_transposed(const uint16_t *row, uint32_t (&x)[4]) {
    load(row, true, x, __builtin_return_address(0));
}

static float element(bool f16, uint32_t pair, unsigned half) {
    const uint16_t bits = (uint16_t)(pair >> 16 * half);
    return f16 ? pb_f16_to_f32(bits) : pb_bf16_to_f32(bits);
}

void shim_multiply(bool f16, const uint32_t *left, const uint32_t *right, float *sums) {
    const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    products++;
    // What this lane needs is its two rows of the left and its two columns of the right operand.
    uint32_t rows[2][8], columns[2][8];  // pairs along k
    for (unsigned r = 0; r < 4; r++)
        for (unsigned from = 0; from < 4; from++)
            shim_shuffle(&left[r], &rows[r % 2][r / 2 * 4 + from], sizeof *left, g * 4 + from);
    for (unsigned c = 0; c < 2; c++)
        for (unsigned r = 0; r < 2; r++)
            for (unsigned from = 0; from < 4; from++)
                shim_shuffle(&right[r], &columns[c][r * 4 + from], sizeof *right, (2 * t + c) * 4 + from);
    for (unsigned i = 0; i < 4; i++) {
        float sum = 0;
        for (unsigned k = 0; k < 16; k++)
            sum += element(f16, rows[i / 2][k / 2], k % 2) * element(f16, columns[i % 2][k / 2], k % 2);
        sums[i] += sum;
    }
}
