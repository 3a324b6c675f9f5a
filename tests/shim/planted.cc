#include "kernels/cuda/compat.h"

extern "C" {
#include "planted.h"
}

namespace {

constexpr unsigned THREADS = 64;
alignas(256) float memory[4096];

// memory[t] = what the thread 32 further on wrote.
template <bool BARRIER> void pass_on(float *x) {
    SHARED(float, shared, THREADS);
    shared[threadIdx.x] = x[threadIdx.x];
    if (BARRIER) __syncthreads();
    x[threadIdx.x] = shared[(threadIdx.x + 32) % THREADS];
}

// The same within a warp; a shuffle lets all lanes come along, but does not order what they wrote.
template <bool BARRIER> void pass_on_in_warp(float *x) {
    SHARED(float, shared, THREADS);
    shared[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
    if (BARRIER) __syncwarp();
    x[threadIdx.x] += shared[threadIdx.x ^ 1];
}

// Written again while others may still read.
template <bool BARRIER> void write_again(float *x) {
    SHARED(float, shared, THREADS);
    for (int k = 0; k < 2; k++) {
        shared[threadIdx.x] = x[threadIdx.x] + (float)k;
        __syncthreads();
        x[threadIdx.x] += shared[THREADS - 1 - threadIdx.x];
        if (BARRIER) __syncthreads();
    }
}

void read_unwritten(float *x) {
    SHARED(float, shared, THREADS);
    if (threadIdx.x) shared[threadIdx.x] = 1;
    __syncthreads();
    x[threadIdx.x] = shared[threadIdx.x];
}

template <int OFFSET> void read_vectors(float *x) {
    const uint4 raw = *reinterpret_cast<const uint4 *>(x + 4 * threadIdx.x + OFFSET);
    memcpy(x + 1024 + 4 * threadIdx.x, &raw, sizeof raw);
}

template <bool WAIT, bool BARRIER> void copy_and_read(float *x) {
    DYNAMIC_SHARED(float, shared);
    copy_async<16>(shared + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
    commit_copies();
    if (WAIT) wait_copies<0>();
    if (BARRIER) __syncthreads();
    x[1024 + threadIdx.x] = shared[(4 * threadIdx.x + 128) % 256];
    wait_copies<0>();
}

void copy_without_end(float *x) {
    DYNAMIC_SHARED(float, shared);
    copy_async<4>(shared + threadIdx.x, x + threadIdx.x, true);
    commit_copies();
}

void copy_misaligned(float *x) {
    DYNAMIC_SHARED(float, shared);
    copy_async<16>(shared + 4 * threadIdx.x, x + 4 * threadIdx.x + 2, true);
    commit_copies();
    wait_copies<0>();
}

void copy_to_device(float *x) {
    copy_async<4>(x + threadIdx.x, x + 512 + threadIdx.x, true);
    commit_copies();
    wait_copies<0>();
}

template <int STRIDE> void load_rows(float *x) {
    DYNAMIC_SHARED(uint16_t, shared);
    for (int i = 0; i < STRIDE; i++) shared[(int)threadIdx.x * STRIDE + i] = (uint16_t)i;
    __syncthreads();
    uint32_t rows[4];
    load_matrices(shared + (int)threadIdx.x * STRIDE, rows);
    x[threadIdx.x] = (float)rows[0];
}

void write_one_place(float *x) {
    if (threadIdx.x == 0) *x = 1;
}

void read_another_block(float *x) {
    x[blockIdx.x * THREADS + threadIdx.x] = x[(blockIdx.x + 1) * THREADS + threadIdx.x];
}

template <unsigned MASK> void shuffle(float *x) {
    x[threadIdx.x] = __shfl_xor_sync(MASK, x[threadIdx.x], 1);
}

void shuffle_apart(float *x) {
    if (threadIdx.x % 2)
        x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
    else
        x[threadIdx.x] = -__shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}

void wait_apart(float *x) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    x[threadIdx.x] = 0;
}

void use_shared(float *x) {
    SHARED(float, shared, THREADS);
    shared[threadIdx.x] = 0;
    x[threadIdx.x] = shared[threadIdx.x];
}

template <void (*KERNEL)(float *), unsigned BLOCKS = 1, unsigned SHARED_BYTES = 1024, unsigned ROWS = 1> void run() {
    if (launch("planted", KERNEL, dim3(BLOCKS, ROWS), THREADS, SHARED_BYTES, NULL, memory) != PB_OK) abort();
}

const planted_fault faults[] = {
    {"shared memory, a barrier", NULL, run<pass_on<true>>},
    {"shared memory, no barrier", "a load of 4 bytes", run<pass_on<false>>},
    {"within a warp, __syncwarp", NULL, run<pass_on_in_warp<true>>},
    {"within a warp, a shuffle", "a load of 4 bytes", run<pass_on_in_warp<false>>},
    {"written again behind a barrier", NULL, run<write_again<true>>},
    {"written again too early", "races with a", run<write_again<false>>},
    {"never written", "nobody has written", run<read_unwritten>},
    {"a vector", NULL, run<read_vectors<0>>},
    {"a vector that is not aligned", "is not aligned", run<read_vectors<1>>},
    {"a copy, waited for, a barrier", NULL, run<copy_and_read<true, true>>},
    {"a copy that nobody waited for", "is under way", run<copy_and_read<false, true>>},
    {"another thread's copy without a barrier", "a load of 4 bytes", run<copy_and_read<true, false>>},
    {"a copy beyond the kernel's end", "before it has waited", run<copy_without_end>},
    {"a copy that is not aligned", "is not aligned", run<copy_misaligned>},
    {"a copy to device memory", "not shared memory", run<copy_to_device>},
    {"rows of matrices", NULL, run<load_rows<8>, 1, 2048>},
    {"rows that are not aligned", "is not aligned", run<load_rows<12>, 1, 2048>},
    {"one block that writes", NULL, run<write_one_place>},
    {"two blocks that write one place", "races with a store", run<write_one_place, 2>},
    {"a block that reads what another writes", "races with a", run<read_another_block, 2>},
    {"a shuffle", NULL, run<shuffle<0xffffffffu>>},
    {"a shuffle of half the lanes", "names not all lanes", run<shuffle<0xffffu>>},
    {"lanes at two shuffles", "threads of one warp wait at", run<shuffle_apart>},
    {"threads at two barriers", "threads of one block wait at", run<wait_apart>},
    {"48 KiB", NULL, run<write_one_place, 1, 48 * 1024>},
    {"more than 48 KiB", "no card runs", run<write_one_place, 1, 48 * 1024 + 16>},
    {"more than 48 KiB with what is static", "bytes of shared memory", run<use_shared, 1, 48 * 1024>},
    {"65536 rows of blocks", "no card runs", run<write_one_place, 1, 0, 65536>},
};

}  // namespace

extern "C" const planted_fault *planted_faults(int *count) {
    *count = (int)(sizeof faults / sizeof faults[0]);
    return faults;
}
