#define PB_ROWS_TABLE pb_rows_avx512
#include "kernels/cpu/rows_table.h"
