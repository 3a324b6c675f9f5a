#include "kernels/cpu/rows.h"

#include "base/isa.h"

const pb_row_kernels *pb_rows(void) {
    switch (pb_cpu_isa().level) {
    case PB_ISA_AVX512: return &pb_rows_avx512;
    case PB_ISA_AVX2: return &pb_rows_avx2;
    default: return &pb_rows_scalar;
    }
}
