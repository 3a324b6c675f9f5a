// Private to the runtime of the tests': what its two halves share.
#ifndef PB_TESTS_RUNTIME_SUPPORT_CUDA_PARTS_H
#define PB_TESTS_RUNTIME_SUPPORT_CUDA_PARTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "support_cuda_runtime.h"

// --- support_cuda_runtime.c: the machine, memory, events, failures ---

struct CUevent_st {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    uint64_t recorded, reached;
    double at;
    int gpu;
    bool timed;
    _Atomic(bool) captured;  // last recorded in a capture: it stands for nothing that ever happens
};

extern atomic_int fake_object_count;
void fake_counted(fake_counter which, uint64_t by);

cudaError_t fake_enter(const char *function);  // the error that a call of it is to return
bool fake_is_broken(void);
cudaError_t fake_refuse(cudaError_t error);  // an error that breaks nothing
bool fake_is_locked(const void *memory, size_t bytes);
int fake_current_gpu(void);                // of this thread
void fake_break_rule(const char *rule);    // a breach
extern _Thread_local bool fake_is_inside;  // this thread runs a host function

void fake_reach(cudaEvent_t event, uint64_t record);
void fake_await(cudaEvent_t event, uint64_t record);
uint64_t fake_recorded(cudaEvent_t event);

#define ENTER(function)                                   \
    do {                                                  \
        const cudaError_t error_ = fake_enter(#function); \
        if (error_ != cudaSuccess) return error_;         \
    } while (0)

// --- support_cuda_streams.c: streams, captures, graphs ---

// A call that no stream sees: a thread that captures must not make it, and its capture is void if it does.
cudaError_t fake_unsafe(void);
#define UNSAFE()                                               \
    do {                                                       \
        const cudaError_t error_ = fake_unsafe();              \
        if (error_ != cudaSuccess) return fake_refuse(error_); \
    } while (0)

void fake_driver_pass(void);     // takes the driver's lock for a moment
bool fake_work_under_way(void);  // in any stream

#endif
