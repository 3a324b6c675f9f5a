// The machines that are built in: cards from their makers' published figures, in hosts as they are usually sold with
// them. docs/machines.md says where each figure comes from; configs/machines has the same as files.
#include <stdio.h>
#include <string.h>

#include "base/machine.h"

#define GIB ((uint64_t)1 << 30)

// Published peaks: dense, multiply-add counted as two, fp32 accumulation.
typedef struct card {
    const char *name;
    double flops_f32, flops_16;  // per second; 16: fp16 and bf16 on the tensor cores
    double memory;               // bytes per second
    uint64_t memory_bytes;
    double link;  // bytes per second each way that copies from and to page-locked memory reach
    double dram;
    double nvme_read, nvme_write;
    uint64_t ram_bytes;
} card;

static const card cards[] = {
    {"rtx3060", 12.7e12, 25.6e12, 360e9, 12 * GIB, 25e9, 45e9, 5e9, 4e9, 32 * GIB},
    {"rtx3090", 35.6e12, 71e12, 936e9, 24 * GIB, 25e9, 45e9, 5e9, 4e9, 64 * GIB},
    {"rtx4090", 82.6e12, 165.2e12, 1008e9, 24 * GIB, 25e9, 45e9, 5e9, 4e9, 64 * GIB},
    // Sold as 141 GB, of which drivers report a little over 140 GiB; hosts with eight channels.
    {"h200", 67e12, 989e12, 4800e9, 140 * GIB, 50e9, 300e9, 5e9, 4e9, 512 * GIB},
};

// What of the peaks is reached and kept up. Contractions of the sizes of Stable Diffusion fill the tensor cores less
// well than square products of thousands do; attention has its softmax between two of them.
static const double contraction_share_16 = 0.6, contraction_share_f32 = 0.75;
static const double attention_share_16 = 0.45, attention_share_f32 = 0.6;
static const double memory_share = 0.8;
// What is not a contraction is bound by memory; its arithmetic, which is not counted, never is.
static const double launch_seconds = 4e-6;
// The CUDA context, the libraries' own memory and a display; in the host the system and this process itself.
static const uint64_t device_margin = 8 * GIB / 10;
static const uint64_t nvme_bytes = 1000000000000u;

static void fill_speeds(const card *c, pb_machine *m) {
    for (int op = 0; op < PB_OP_COUNT; op++)
        for (int d = 0; d < PB_SPEED_DTYPES; d++) {
            const bool half = d != PB_SPEED_F32, attention = op == PB_OP_ATTENTION || op == PB_OP_ATTENTION_BWD;
            const double share = attention ? (half ? attention_share_16 : attention_share_f32)
                                           : (half ? contraction_share_16 : contraction_share_f32);
            m->op[op][d] = (pb_op_speed){.flops = share * (half ? c->flops_16 : c->flops_f32),
                                         .bandwidth = memory_share * c->memory};
        }
}

static uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

static void fill(const card *c, const char *name, pb_machine *m) {
    *m = (pb_machine){
        .overhead = launch_seconds,
        .upload = c->link,
        .download = c->link,
        // Both at once read and write the host's memory, whose speed can be less than the two links'.
        .copy_both = 2 * c->link < c->dram ? 2 * c->link : c->dram,
        .dram = c->dram,
        .nvme_read = c->nvme_read,
        .nvme_write = c->nvme_write,
        .nvme_both = c->nvme_read,  // a drive shares its one link to its flash
        .host_adamw = 0.9 * c->dram,
        .device_bytes = c->memory_bytes - device_margin,
        .host_bytes = c->ram_bytes - larger(4 * GIB, c->ram_bytes / 5),
        .nvme_bytes = nvme_bytes,
    };
    snprintf(m->name, sizeof m->name, "%s", name);
    fill_speeds(c, m);
}

enum { CARDS = sizeof cards / sizeof *cards };

static const char *const generic = "generic", *const generic_card = "rtx3090";

const char *pb_machine_builtin_name(int index) {
    return index < 0 || index > CARDS ? NULL : index == CARDS ? generic : cards[index].name;
}

static pb_machine machines[CARDS + 1];

// Once per process, before main(): afterwards the table is only read.
__attribute__((constructor)) static void fill_all(void) {
    for (int i = 0; i < CARDS; i++) {
        fill(&cards[i], cards[i].name, &machines[i]);
        if (strcmp(cards[i].name, generic_card) == 0) fill(&cards[i], generic, &machines[CARDS]);
    }
}

const pb_machine *pb_machine_builtin(const char *name) {
    for (int i = 0; i <= CARDS; i++)
        if (strcmp(machines[i].name, name) == 0) return &machines[i];
    return NULL;
}
