// The matrix instructions of compat.h against a plain product, with operands and results put together element by
// element as PTX numbers them ("Matrix Fragments for mma.m16n8k16", ".. m16n8k8", "ldmatrix"): a_i, b_i and c_i of a
// lane, two 16-bit elements to a register, the first in its low half. It is written apart from both the kernels and the
// shim's own instructions, which would not find out about a mistake that they share.
#include "kernels/cuda/compat.h"

extern "C" {
#include "planted.h"
}

namespace {

constexpr int M = 16, N = 8, K = 16;
float left[M][K], right[K][N], product[M][N];
uint32_t rows[2][4][8][8];  // [transposed][matrix]: what ldmatrix brought, as [row][column]

template <typename T> uint32_t pair_of(float first, float second) {
    return pack<T>(first, second);
}

template <typename T, bool HALF> void multiply(int) {
    const int lane = (int)threadIdx.x, group = lane >> 2, in_group = lane % 4;
    float a[8], b[4], c[4];
    for (int i = 0; i < (HALF ? 4 : 8); i++) {
        const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
        a[i] = left[row][in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0)];
    }
    for (int i = 0; i < (HALF ? 2 : 4); i++) b[i] = right[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group];
    for (int i = 0; i < 4; i++) c[i] = 1;
    if (HALF) {
        multiply_half_matrices<T>(pair_of<T>(a[0], a[1]), pair_of<T>(a[2], a[3]), pair_of<T>(b[0], b[1]), c);
    } else {
        const uint32_t of_a[4] = {pair_of<T>(a[0], a[1]), pair_of<T>(a[2], a[3]), pair_of<T>(a[4], a[5]),
                                  pair_of<T>(a[6], a[7])};
        multiply_matrices<T>(of_a, pair_of<T>(b[0], b[1]), pair_of<T>(b[2], b[3]), c);
    }
    for (int i = 0; i < 4; i++) product[i < 2 ? group : group + 8][in_group * 2 + (i & 1)] = c[i];
}

// Four matrices of numbers 64 i + 8 row + column; a lane keeps what it gets where PTX says that it lies.
void load_all(int) {
    DYNAMIC_SHARED(uint16_t, shared);
    const int lane = (int)threadIdx.x;
    for (int c = 0; c < 8; c++) shared[lane * 8 + c] = (uint16_t)(lane * 8 + c);
    __syncthreads();
    uint32_t x[4];
    load_matrices(shared + lane * 8, x);
    for (int i = 0; i < 4; i++)
        for (int h = 0; h < 2; h++) rows[0][i][lane / 4][lane % 4 * 2 + h] = x[i] >> 16 * h & 0xffff;
    load_matrices_transposed(shared + lane * 8, x);
    for (int i = 0; i < 4; i++)
        for (int h = 0; h < 2; h++) rows[1][i][lane % 4 * 2 + h][lane / 4] = x[i] >> 16 * h & 0xffff;
}

// Small integers: every product and sum is exact.
template <typename T, bool HALF> bool multiplies() {
    const int depth = HALF ? 8 : 16;
    for (int k = 0; k < K; k++) {
        for (int m = 0; m < M; m++) left[m][k] = (float)((m * 7 + k * 5) % 13 - 6);
        for (int n = 0; n < N; n++) right[k][n] = (float)((k * 3 + n * 11) % 17 - 8);
    }
    if (launch("fragments", multiply<T, HALF>, dim3(1), 32, 0, NULL, 0) != PB_OK) return false;
    for (int m = 0; m < M; m++) {
        for (int n = 0; n < N; n++) {
            float sum = 1;
            for (int k = 0; k < depth; k++) sum += left[m][k] * right[k][n];
            if (product[m][n] != sum) return false;
        }
    }
    return true;
}

}  // namespace

extern "C" const char *fragments_fault(void) {
    if (!multiplies<pb_f16, false>()) return "mma.m16n8k16, f16";
    if (!multiplies<pb_bf16, false>()) return "mma.m16n8k16, bf16";
    if (!multiplies<pb_f16, true>()) return "mma.m16n8k8, f16";
    if (!multiplies<pb_bf16, true>()) return "mma.m16n8k8, bf16";
    if (launch("fragments", load_all, dim3(1), 32, 512, NULL, 0) != PB_OK) return "no launch";
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < 4; i++)
            for (int r = 0; r < 8; r++)
                for (int c = 0; c < 8; c++)
                    if (rows[t][i][r][c] != (uint32_t)(64 * i + 8 * r + c)) return t ? "ldmatrix.trans" : "ldmatrix";
    return NULL;
}
